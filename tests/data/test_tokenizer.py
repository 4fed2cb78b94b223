"""Tokenizers: round trips, EOS, chat templates, saved files, and threads."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nft_jax.data import template_process
from nft_jax.data.arithmetic import all_problems, draw_examples, incorrect_solution, split
from nft_jax.data.files import Problem, load_problems
from nft_jax.data.prompts import build_prompts, render
from nft_jax.data.sentencepiece_training import train_sentencepiece
from nft_jax.data.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def texts_of(problems):
    return [p.problem + s for p in problems for s in (p.solution, incorrect_solution(p))]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The default experiment's tokenizer."""
    pairs = draw_examples(split(all_problems(6))["train"], size=20_000, incorrect_share=0.65, seed=0)
    path = tmp_path_factory.mktemp("small") / "tokenizer.model"
    assert train_sentencepiece([a + b for a, b in pairs], path) == path
    return load_tokenizer(path)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A folder with a byte-level BPE tokenizer like Qwen2's, small enough to train here."""
    return make_twin(tmp_path_factory.mktemp("twin"))


def make_twin(folder, *, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), config=None):
    """Writes the twin's folder; `config` is its tokenizer_config.json."""
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["Find the value of $x$, and put it in \\boxed{}. It 's 12 !"] * 5, trainer)
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in special])
    # Some published folders contain truncation and padding settings, which must not affect what we encode.
    backend.enable_truncation(4)
    backend.enable_padding(length=4, pad_token="<|im_start|>", pad_id=backend.token_to_id("<|im_start|>"))
    backend.save(str(folder / "tokenizer.json"))
    if config is None:
        config = {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


MIXED = ["", " ", "a , b !  it 's", "x\n\n\ty", "∑ naïve 数学 🙂", "\\boxed{\\frac{1}{2}} {} {problem}", "12345"]


def test_train_sentencepiece_round_trips_every_text(small):
    texts = texts_of(all_problems(6)) + texts_of(all_problems(9))
    assert small.decode_batch(small.encode_batch(texts)) == texts


def test_train_sentencepiece_has_one_piece_a_character_and_one_for_the_box(small):
    assert small.vocab_size == 20
    assert small.eos_ids == (1,)
    problem = all_problems(6)[5]
    text = problem.problem + problem.solution
    assert r"\boxed{" in text
    ids = small.encode(text)
    assert len(ids) == len(text.replace(r"\boxed{", "B"))
    assert len({small.encode(digit)[0] for digit in "0123456789"}) == 10
    assert [len(small.encode(piece)) for piece in (r"\boxed{", "}", "-", "10", "-3")] == [1, 1, 1, 2, 2]
    assert not {0, 1} & set(ids)  # neither unknown nor EOS, nor anything in front


def test_train_sentencepiece_writes_the_same_bytes_for_the_same_texts(tmp_path):
    texts = texts_of(all_problems(3))
    code = (
        "import sys; from nft_jax.data import arithmetic as a, sentencepiece_training as t; ps = a.all_problems(3);"
        "t.train_sentencepiece([p.problem + s for p in ps for s in (p.solution, a.incorrect_solution(p))], sys.argv[1])"
    )
    paths = [tmp_path / "one.model", tmp_path / "deep" / "two.model", tmp_path / "three.model"]
    train_sentencepiece(texts, paths[0])
    train_sentencepiece(iter(texts), paths[1])
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, paths[2]], check=True, cwd=ROOT, env=environment)
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 1


def test_train_sentencepiece_keeps_spaces_and_accepts_several_symbols(tmp_path):
    texts = ["ab  c", " lead and trail ", "x\ty", "<s>ab<e>"]
    tokenizer = load_tokenizer(train_sentencepiece(texts, tmp_path / "a.model", symbols=("<s>", "<e>")))
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts
    assert len(tokenizer.encode("<s>ab<e>")) == 4


def test_train_sentencepiece_errors(tmp_path):
    with pytest.raises(ValueError, match="does not end in .model"):
        train_sentencepiece(["a"], tmp_path / "a.spm")
    with pytest.raises(ValueError, match="at least one text"):
        train_sentencepiece(["", ""], tmp_path / "a.model")
    with pytest.raises(ValueError, match=r"the texts contain \['\\n'\]"):
        train_sentencepiece(["a\nb"], tmp_path / "a.model")


def test_decode_stops_before_eos_and_skips_special_ids(small, twin):
    for tokenizer in (small, load_tokenizer(twin)):
        body, end = tokenizer.encode("1,5"), tokenizer.eos_ids[0]
        assert tokenizer.decode([*body, end, *body]) == "1,5"
        assert tokenizer.decode([end, *body]) == ""
        assert tokenizer.decode(np.array([*body, tokenizer.vocab_size, 10**6, -1], np.int32)) == "1,5"
        assert tokenizer.decode_batch([body, [], np.array(body)]) == ["1,5", "", "1,5"]
        assert tokenizer.decode_batch([]) == tokenizer.encode_batch([]) == []
        assert tokenizer.decode([]) == ""


def test_hugging_face_tokenizer_round_trips_and_finds_its_eos(twin):
    tokenizer = load_tokenizer(twin)
    assert tokenizer.decode_batch(tokenizer.encode_batch(MIXED)) == MIXED
    assert tokenizer.encode_batch(MIXED) == [tokenizer.encode(text) for text in MIXED]
    ids = tokenizer.encode("<|endoftext|><|im_start|><|im_end|>")
    assert max(ids) == tokenizer.vocab_size - 1
    assert tokenizer.eos_ids == (ids[0], ids[2])
    assert tokenizer.decode([*tokenizer.encode("a<|im_start|>b"), ids[2], *tokenizer.encode("c")]) == "ab"


def test_eos_ids_start_with_the_declared_then_those_of_the_settings(tmp_path):
    folder = make_twin(tmp_path, config={"eos_token": "<|im_end|>"})
    plain = load_tokenizer(folder)
    text_end, turn_end = plain.encode("<|endoftext|>")[0], plain.encode("<|im_end|>")[0]
    assert plain.eos_ids == (turn_end, text_end)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, turn_end, 10**6]}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 6}))
    several = load_tokenizer(folder)
    assert several.eos_ids == (turn_end, 5, 6, text_end)
    assert several.decode([9, 5, 9]) == plain.decode([9]) != plain.decode([9, 5])


@pytest.mark.parametrize(
    ("declared", "first"),
    [([7, 5], [7, 5]), (7, [7]), ([], []), (None, []), ([None, 7, 7, -1], [7])],
)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_eos_ids_of_the_settings_of_a_model(tmp_path, declared, first, file):
    folder = make_twin(tmp_path, config={})
    ends = [load_tokenizer(folder).encode(text)[0] for text in ("<|im_end|>", "<|endoftext|>")]
    (folder / file).write_text(json.dumps({"eos_token_id": declared}))
    assert load_tokenizer(folder).eos_ids == (*first, *ends)


@pytest.mark.parametrize("declared", ["</s>", [True], [5, 1.5], {"id": 5}, [[5]]])
def test_eos_ids_that_are_not_ids_are_an_error(tmp_path, declared):
    folder = make_twin(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": declared}))
    with pytest.raises(ValueError, match="generation_config.json: eos_token_id is .*; it must be an id like 2"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"eos_token_id": [1, ', "is no JSON: .*; download it again"),
        (b"", "is no JSON"),
        (b'{"eos_token": "a", "eos_token": "b"}', "is no JSON: it gives 'eos_token' twice in one object"),
        (b"version https://git-lfs.github.com/spec/v1", "is no JSON"),
        (b'{"eos_token": "\xe9"}', "is no JSON: .*can't decode byte 0xe9"),
        (b"[1, 2]", "holds a JSON list, not an object"),
    ],
)
def test_load_tokenizer_names_a_malformed_file(tmp_path, name, content, message):
    folder = make_twin(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder / name} {message}"):
        load_tokenizer(folder)


def test_save_keeps_the_files(small, twin, tmp_path):
    load_tokenizer(twin).save(tmp_path / "a" / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / "b" / name).read_bytes() == (twin / name).read_bytes()
    small.save(tmp_path / "c")
    again = load_tokenizer(tmp_path / "c")
    assert (again.vocab_size, again.encode("1-2=")) == (small.vocab_size, small.encode("1-2="))


def test_apply_chat_template(small, twin, tmp_path):
    messages = [{"role": "user", "content": "{x}"}]
    for tokenizer in (small, load_tokenizer(make_twin(tmp_path, config={"eos_token": "<|endoftext|>"}))):
        with pytest.raises(ValueError, match="has no chat template; use another config.data.template"):
            tokenizer.apply_chat_template(messages)
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    text = "<|im_start|>user\n{x}<|im_end|>\n<|im_start|>assistant\n"
    assert load_tokenizer(twin).apply_chat_template(messages) == text


CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+{x}?<|im_end|>\n<|im_start|>assistant\n"
CHATML_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}" + TEMPLATE
)


def keep_in_jinja_file(folder):
    (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    # An older template in the config, which the separate file replaces.
    return {"eos_token": "<|im_end|>", "chat_template": "old"}


@pytest.mark.parametrize(
    "keep",
    [
        keep_in_jinja_file,
        lambda folder: {"eos_token": "<|im_end|>", "chat_template": CHATML_TEMPLATE},
        lambda folder: {
            "eos_token": "<|im_end|>",
            "chat_template": [{"name": "default", "template": CHATML_TEMPLATE}, {"name": "tool_use", "template": "no"}],
        },
    ],
    ids=["chat_template.jinja", "tokenizer_config.json", "several"],
)
def test_apply_chat_template_uses_the_folders_template(tmp_path, keep):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    folder = tmp_path / "model"
    folder.mkdir()
    make_twin(folder, config=keep(folder))
    tokenizer = load_tokenizer(folder)
    table = build_prompts([Problem("1+{x}?", "2")], tokenizer, template="chat", max_prompt_tokens=200)
    assert table.prompts == [CHATML]
    ids = table.token_QP[0, : table.length_Q[0]].tolist()
    start, end = (tokenizer.encode(text)[0] for text in ("<|im_start|>", "<|im_end|>"))
    assert (ids.count(start), ids.count(end)) == (3, 2)  # the marks are tokens of their own, not text
    tokenizer.save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").apply_chat_template([{"role": "user", "content": "1+{x}?"}]) == CHATML


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "can't be used: Expected an expression"),
        ("{{ raise_exception('no lone user') }}", "can't be used: no lone user; choose another prompt template"),
        ([{"name": "a", "template": "x"}, {"name": "b", "template": "y"}], "can't be used: .* no default"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "can't be used: one prompt takes it more than 0.5 s of processor time, so it loops; choose another",
        ),
        ("{{ 'x' * 10 ** 11 }}", "can't be used: MemoryError; choose another prompt template"),
    ],
)
def test_apply_chat_template_that_fails_is_an_error(tmp_path, monkeypatch, template, message):
    monkeypatch.setattr(template_process, "_SECONDS", 0.5)
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    tokenizer = load_tokenizer(make_twin(tmp_path, config={"eos_token": "<|im_end|>", "chat_template": template}))
    with pytest.raises(ValueError, match=message):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


def test_render_qwen_math_equals_that_models_chat_template(tmp_path):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    tokenizer = load_tokenizer(make_twin(tmp_path))
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": "1+{x}?"},
    ]
    assert render("1+{x}?", tokenizer, template="qwen_math") == tokenizer.apply_chat_template(messages)


def test_encode_batch_and_decode_batch_from_many_threads(twin, small):
    for tokenizer in (load_tokenizer(twin), small):
        batches = [[f"{i}-{j}+1-2=" * (j % 7) for j in range(40)] for i in range(60)]
        encoded = [tokenizer.encode_batch(batch) for batch in batches]
        with ThreadPoolExecutor(8) as threads:
            encoding = threads.map(tokenizer.encode_batch, batches)
            decoding = threads.map(tokenizer.decode_batch, encoded)
            assert list(encoding) == encoded
            assert list(decoding) == batches


def test_load_tokenizer_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download OWNER/NAME --local-dir"):
        load_tokenizer(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="neither a tokenizer.json nor exactly one .* but: nothing"):
        load_tokenizer(empty)
    for name in ("a.model", "b.model"):
        (empty / name).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"but: a\.model, b\.model"):
        load_tokenizer(empty)
    with pytest.raises(ValueError, match="a.model is not a readable SentencePiece model"):
        load_tokenizer(empty / "a.model")
    (empty / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="has no readable Hugging Face tokenizer"):
        load_tokenizer(empty)
    with pytest.raises(ValueError, match="give the folder of this file"):
        load_tokenizer(empty / "tokenizer.json")


def test_load_tokenizer_without_eos_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no end-of-sequence token.* add "eos_token"'):
        load_tokenizer(make_twin(tmp_path, special=("<|im_start|>",), config={}))
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc"]), model_prefix=str(tmp_path / "no_eos"), vocab_size=4, eos_id=-1,
        bos_id=-1, model_type="char", minloglevel=2, add_dummy_prefix=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no end-of-sequence piece"):
        load_tokenizer(tmp_path / "no_eos.model")


def test_data_imports_neither_jax_nor_transformers():
    code = (
        "import sys, nft_jax.data.prompts, nft_jax.data.arithmetic, nft_jax.data.files;"
        "assert not {'jax', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def train_like_published(folder):
    """Trains a SentencePiece model like most: BOS and PAD, a dummy prefix, normalized text."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world", "the value of x", "1 + 1 = 2"] * 20), model_type="unigram",
        model_prefix=str(folder / "published"), vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    )  # fmt: skip
    return folder / "published.model"


def check_published(path):
    """Checks that encoding adds no BOS or EOS, and that decoding contains neither."""
    import sentencepiece

    tokenizer, model = load_tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert model.bos_id() >= 0
    assert tokenizer.eos_ids == (model.eos_id(),)
    assert tokenizer.vocab_size == model.vocab_size()
    ids = tokenizer.encode("hello world")
    assert not {model.bos_id(), model.eos_id(), model.pad_id()} & set(ids)
    assert tokenizer.decode([model.bos_id(), *ids, model.eos_id(), *ids]) == "hello world"
    marks = [model.id_to_piece(i) for i in (model.bos_id(), model.eos_id())]
    assert not {model.bos_id(), model.eos_id()} & set(tokenizer.encode("".join(marks)))  # text can't end an answer


def test_load_tokenizer_of_a_published_sentencepiece_model(tmp_path):
    check_published(train_like_published(tmp_path))


def test_load_tokenizer_of_the_real_sentencepiece_model(data_folder):
    path = data_folder / "tokenizers" / "sentencepiece" / "cc_all_32000.model"
    check_published(path)
    assert (load_tokenizer(path).vocab_size, load_tokenizer(path).eos_ids) == (32_101, (1,))


def test_load_tokenizer_of_the_real_qwen2(data_folder):
    tokenizer = load_tokenizer(data_folder / "tokenizers" / "qwen2")
    assert tokenizer.vocab_size == 151_665
    assert tokenizer.eos_ids == (151_643, 151_645)
    assert tokenizer.encode("hello") == [14990]
    assert tokenizer.decode_batch(tokenizer.encode_batch(MIXED)) == MIXED
    assert tokenizer.decode([14990, 151_644, 14990, 151_700, 151_645, 14990]) == "hellohello"
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    text = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert render("1+1?", tokenizer, template="chat") == text
    prompt = render("1+1?", tokenizer, template="qwen_math")
    assert [tokenizer.encode(prompt).count(i) for i in (151_644, 151_645)] == [3, 2]


def test_build_prompts_of_real_problems_with_the_real_tokenizer(data_folder):
    tokenizer = load_tokenizer(data_folder / "tokenizers" / "qwen2")
    problems = load_problems(data_folder / "problems" / "math500.jsonl")
    table = build_prompts(problems, tokenizer, template="qwen_math", max_prompt_tokens=2048)
    assert table.dropped == 0
    texts = [p.problem for p in problems]
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts
