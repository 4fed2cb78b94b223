"""Texts that end an answer: the automaton against a search in the text, and the bytes of each token."""

import numpy as np
import pytest
import sentencepiece
import tokenizers

from nft_jax.data.sentencepiece_training import train_sentencepiece
from nft_jax.data.stops import byte_level_pieces, compile_stops, cut_at_stop, sentencepiece_pieces
from nft_jax.data.tokenizer import load_tokenizer

TEXT = "Q: 1+1=2\nA: é → 日本 fine\n\nQ: why? " * 20


def first_stop(table: np.ndarray, ids: list[int]) -> int | None:
    """How many tokens the automaton reads until a stop is complete; None if none is."""
    state = 0
    for count, token in enumerate(ids, 1):
        state = table[token, state]
        if state == table.shape[1]:
            return count
    return None


def searched(stops: list[str], pieces: list[bytes], ids: list[int]) -> int | None:
    """The same by a search in the bytes."""
    for count in range(1, len(ids) + 1):
        text = b"".join(pieces[i] for i in ids[:count])
        if any(stop.encode() in text for stop in stops):
            return count
    return None


def test_compile_stops_finds_every_stop_at_its_token():
    random, found = np.random.default_rng(0), []

    def text(least, most):
        return "".join(random.choice([*"ab\n"], random.integers(least, most + 1)))

    for _ in range(150):
        stops = [text(1, 5) for _ in range(random.integers(1, 4))]
        pieces = [text(0, 4).encode() for _ in range(12)]
        table = compile_stops(stops, pieces)
        assert table.shape == (12, len({stop[:n] for stop in stops for n in range(len(stop))}))
        ids = random.integers(0, 12, 20).tolist()
        found.append(first_stop(table, ids))
        assert found[-1] == searched(stops, pieces, ids), (stops, pieces, ids)
        # The text that is graded has no stop in it, and is all that comes before the first.
        whole = b"".join(pieces[i] for i in ids[: found[-1]]).decode()
        rest = cut_at_stop(whole, stops)
        assert not any(stop in rest for stop in stops)
        assert whole.startswith(rest)
        assert (rest == whole) == (found[-1] is None)
    assert None in found
    assert len({*found}) > 10


def test_compile_stops_refuses_texts_that_are_too_long():
    assert compile_stops(["x" * 254], [b"x"]).shape == (1, 254)
    with pytest.raises(ValueError, match="255 bytes are too many; use at most 254"):
        compile_stops(["x" * 255], [b"x"])


@pytest.fixture(scope="module")
def byte_level():
    """A small byte-level tokenizer, whose tokens may be parts of characters, with a special and another added token."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([TEXT], tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    backend.add_special_tokens(["<|end|>"])
    backend.add_tokens(["<think>"])
    return backend


def test_byte_level_pieces_join_to_the_decoded_text(byte_level):
    size, random = byte_level.get_vocab_size(), np.random.default_rng(0)
    pieces = byte_level_pieces(byte_level, size)
    for ids in [byte_level.encode(TEXT).ids, *(random.integers(0, size, 30).tolist() for _ in range(50))]:
        assert b"".join(pieces[i] for i in ids).decode(errors="replace") == byte_level.decode(ids)
    assert pieces[byte_level.token_to_id("<|end|>")] == b""
    assert pieces[byte_level.token_to_id("<think>")] == b"<think>"


def test_byte_level_pieces_refuses_other_tokenizers():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    for decoder, name in ((None, "None"), (tokenizers.decoders.WordPiece(), "WordPiece")):
        if decoder is not None:
            words.decoder = decoder
        with pytest.raises(ValueError, match=f"config.rollout.stop: .*decodes by {name}; use config.rollout.stop=''"):
            byte_level_pieces(words, 1)


def test_sentencepiece_pieces_join_to_the_decoded_text(tmp_path):
    path = str(train_sentencepiece(["0123456789+-= xyz"], tmp_path / "t.model"))
    processor, random = sentencepiece.SentencePieceProcessor(model_file=path), np.random.default_rng(0)
    pieces = sentencepiece_pieces(processor)
    for _ in range(50):
        ids = random.integers(0, processor.vocab_size(), 12).tolist()
        assert b"".join(pieces[i] for i in ids).decode() == processor.decode(ids)


def test_tokenizer_stop_at_leaves_stop_texts_out_of_decoded_text(tmp_path):
    tokenizer = load_tokenizer(train_sentencepiece(["0123456789+-= xyz"], tmp_path / "t.model"))
    ids = tokenizer.encode("1+1=2 y=3 z")
    assert tokenizer.decode(ids) == "1+1=2 y=3 z"
    tokenizer.stop_at(["z", " y="])
    assert (tokenizer.decode(ids), tokenizer.decode(ids[:6])) == ("1+1=2", "1+1=2 ")
    assert first_stop(tokenizer.stop_table, ids) == len("1+1=2 y=")
    tokenizer.stop_at([])
    assert (tokenizer.decode(ids), tokenizer.stop_table) == ("1+1=2 y=3 z", None)
