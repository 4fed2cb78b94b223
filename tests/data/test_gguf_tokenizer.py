"""The tokenizer of a GGUF file: the tokens of the tokenizer that it was made from."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from helpers.gguf_models import TEXTS, draw_tensors, tokenizer_values, train_tokenizer, write_gguf
from nft_jax.data.gguf_files import open_gguf
from nft_jax.data.gguf_tokenizer import eos_ids, write_tokenizer
from nft_jax.data.tokenizer import load_tokenizer

pytest.importorskip("gguf")
TENSORS = draw_tensors("qwen2", 40)


def write(path, pre="gpt-2", unused=0, **changes):
    """A file with a trained tokenizer, whose metadata is changed; None leaves a key out."""
    values = tokenizer_values(train_tokenizer(), pre, unused)
    values |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return write_gguf(path, TENSORS, values={key: value for key, value in values.items() if value is not None})


def draw_texts(count=100, seed=0):
    """Random texts of letters, digits, signs and white space."""
    random = np.random.default_rng(seed)
    signs = list("abzAé漢 019½  \n\t\r.,'$+-=(){}") + ["'ll", "<|im_end|>", "<think>", "Tom has"]
    return ["".join(random.choice(signs, random.integers(0, 40))) for _ in range(count)]


def test_load_tokenizer_reads_the_tokens_of_a_gguf_file(tmp_path):
    original, ours = train_tokenizer(), load_tokenizer(write(tmp_path / "model.gguf"))
    for text in TEXTS + draw_texts():
        ids = original.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids, text
        assert ours._decode([ids])[0] == original.decode(ids, skip_special_tokens=True)
    assert ours.vocab_size == original.get_vocab_size()
    assert ours.eos_ids == (original.token_to_id("<|im_end|>"),)
    assert ours.apply_chat_template([{"role": "user", "content": "1"}]) == "<|im_start|>user\n1<|im_end|>\n"


@pytest.mark.parametrize(
    "pre, pieces",
    [
        ("gpt-2", ["a", " ", " 345", "+", "12", "\n", "\n", "He", "'ll"]),
        ("smollm", ["a", "  ", "3", "4", "5", "+", "1", "2", "\n", "\n", "He", "'ll"]),
        ("qwen2", ["a", " ", " ", "3", "4", "5", "+", "1", "2", "\n\n", "He", "'ll"]),
        ("llama-bpe", ["a", " ", " ", "345", "+", "12", "\n\n", "He", "'ll"]),
    ],
)
def test_write_tokenizer_splits_text_by_the_rules_that_the_file_names(tmp_path, pre, pieces):
    """The pieces as the rules' expressions define them, written by hand."""
    write_tokenizer(open_gguf(write(tmp_path / "model.gguf", pre)), tmp_path)
    rule = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).pre_tokenizer
    text = "a  345+12\n\nHe'll"
    found = [text[start:end] for _, (start, end) in rule.pre_tokenize_str(text)]
    assert "".join(found) == text
    assert found == pieces


def test_smollm_splits_digits_alone(tmp_path):
    """No token holds two digits or a digit beside anything else, whatever the merges."""
    tokenizer = load_tokenizer(write(tmp_path / "model.gguf", "smollm"))
    for text in draw_texts():
        parts = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
        for part, _ in parts:
            if part.isascii() and part.isdigit():
                assert len(part) == 1 and len(tokenizer.encode(part)) == 1


def test_write_tokenizer_leaves_unused_tokens_out(tmp_path):
    """Converters fill the table up; those ids must not be sampled."""
    whole, padded = load_tokenizer(write(tmp_path / "a.gguf")), load_tokenizer(write(tmp_path / "b.gguf", unused=13))
    assert padded.vocab_size == whole.vocab_size


def test_write_tokenizer_makes_a_folder_that_loads_the_same(tmp_path):
    path, folder = write(tmp_path / "model.gguf", "smollm"), tmp_path / "folder"
    tokenizer = load_tokenizer(path)
    tokenizer.save(folder)
    again = load_tokenizer(folder)
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert again.eos_ids == tokenizer.eos_ids


def test_eos_ids_are_all_that_the_file_names(tmp_path):
    path = write(tmp_path / "model.gguf", eot_token_id=5, eom_token_id=318)
    assert eos_ids(open_gguf(path)) == [318, 5]
    assert load_tokenizer(path).eos_ids == (318, 5)


@pytest.mark.parametrize(
    "pre, given, expected", [("qwen2", None, False), ("llama-bpe", None, True), ("smollm", True, True)]
)
def test_write_tokenizer_keeps_bos_for_other_programs(tmp_path, pre, given, expected):
    path = write(tmp_path / "model.gguf", pre, add_bos_token=given)
    write_tokenizer(open_gguf(path), tmp_path)
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (other.encode("a").tokens[0] == "<|im_start|>") == expected
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_bos_token"] == expected
    assert "<|im_start|>" not in load_tokenizer(path)._backend.encode("a", add_special_tokens=False).tokens


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"model": "llama"}, "its tokenizer is of kind 'llama', and only 'gpt2' is read"),
        ({"pre": "qwen"}, "unknown pre-tokenizer 'qwen': .*did you mean 'qwen2'"),
        ({"merges": None}, "has no tokenizer.ggml.merges"),
        ({"tokens": None, "token_type": None}, "has no tokenizer.ggml.tokens, tokenizer.ggml.token_type"),
        ({"eos_token_id": 9999}, "eos_token_id=9999"),
        ({"token_type": [1, 1]}, "has 320 tokens, but .*2 kinds of tokens"),
    ],
)
def test_write_tokenizer_refuses_what_it_cannot_read(tmp_path, changes, fault):
    with pytest.raises(ValueError, match=f"model.gguf.*{fault}"):
        load_tokenizer(write(tmp_path / "model.gguf", **changes))


def test_write_tokenizer_refuses_merges_of_unknown_tokens(tmp_path):
    with pytest.raises(ValueError, match="model.gguf: its tokens and merges make no tokenizer .*out of vocabulary"):
        load_tokenizer(write(tmp_path / "model.gguf", merges=["zz qq"]))


def test_load_tokenizer_refuses_a_gguf_file_without_eos(tmp_path):
    values = tokenizer_values(train_tokenizer(), "gpt-2")
    tokens = [f"x{text}" if text == "<|im_end|>" else text for text in values["tokenizer.ggml.tokens"]]
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        load_tokenizer(write(tmp_path / "model.gguf", eos_token_id=None, tokens=tokens))
