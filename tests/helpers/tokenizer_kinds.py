"""A small tokenizer of each kind, all with the same control tokens; some have them as pieces of their model, too."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nft_jax.data import tokenizer as ours

MARKS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<｜User｜>")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)
TEXTS = ["Find the value of x, and put it in \\boxed{}. It 's 12 ! <|im end|> s / eot id", "1 + 2 = 3"] * 5


def _byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def _byte_fallback() -> Tokenizer:
    """Like Llama 2's: marks are entries of the vocabulary, one of which merges would make."""
    letters = sorted({*"▁".join(TEXTS).replace(" ", "▁"), *"".join(MARKS)})
    vocabulary = ["<unk>", *MARKS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "</", "</s"]
    vocabulary = {text: i for i, text in enumerate(dict.fromkeys(vocabulary))}
    merges = [("<", "/"), ("</", "s"), ("</s", ">")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _unigram() -> Tokenizer:
    """Its lattice would choose a mark wherever the text has one: it is the best piece."""
    letters = sorted({*"▁".join(TEXTS).replace(" ", "▁"), *"".join(MARKS)})
    pieces = [("<unk>", 0.0), *((mark, 0.0) for mark in MARKS), *((letter, -5.0) for letter in letters)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer, backend.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    return backend


def _words() -> Tokenizer:
    """Its words are what stands between spaces."""
    words = ["<unk>", *MARKS, *dict.fromkeys(" ".join(TEXTS).split())]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _word_pieces() -> Tokenizer:
    pieces = ["<unk>", *MARKS, *sorted({*"".join(TEXTS)} - {" "})]
    pieces += [f"##{piece}" for piece in pieces if len(piece) == 1]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    return backend


def _hugging_face(make: Callable[[], Tokenizer]) -> Callable[[Path], ours.Tokenizer]:
    def write(folder: Path) -> ours.Tokenizer:
        backend = make()
        # Turn marks of DeepSeek are not declared as special; <think> is no mark, and the spaces are no control token.
        backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS[:-1]])
        backend.add_tokens([AddedToken(text, normalized=False) for text in (MARKS[-1], "<think>", "    ")])
        backend.save(str(folder / "tokenizer.json"))
        settings = {"eos_token": "<|im_end|>", "unk_token": "<unk>", "chat_template": CHAT}
        if isinstance(backend.model, models.BPE) and "<unk>" not in backend.get_vocab():
            settings.pop("unk_token")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return ours.load_tokenizer(folder)

    return write


def _sentencepiece(kind: str) -> Callable[[Path], ours.Tokenizer]:
    def write(folder: Path) -> ours.Tokenizer:
        import sentencepiece

        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 4), model_type=kind, model_prefix=str(folder / "t"), vocab_size=90,
            hard_vocab_limit=False, minloglevel=2, byte_fallback=False, character_coverage=1.0,
            user_defined_symbols=[*MARKS[2:], "[INST]", "<think>"],
        )  # fmt: skip
        return ours.load_tokenizer(folder / "t.model")

    return write


KINDS: dict[str, Callable[[Path], ours.Tokenizer]] = {
    "byte-level BPE": _hugging_face(_byte_level),
    "BPE with bytes": _hugging_face(_byte_fallback),
    "unigram": _hugging_face(_unigram),
    "words": _hugging_face(_words),
    "word pieces": _hugging_face(_word_pieces),
    "SentencePiece unigram": _sentencepiece("unigram"),
    "SentencePiece characters": _sentencepiece("char"),
}
