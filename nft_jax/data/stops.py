"""Texts that end an answer (`rollout.stop`), although they may begin and end inside tokens.

An automaton reads the bytes of an answer: its state is the longest beginning of a stop text that the bytes so far end
with. Each token moves it by all of its bytes, so a table `[token, state]` is enough for the decode loop.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def compile_stops(texts: Sequence[str], pieces: Sequence[bytes]) -> np.ndarray:
    """Returns uint8 `[V, N]`: the state after token v in state n of N; N says that a stop text is complete.

    State 0 is that of an empty answer. A text that is complete before the end of a token counts.

    Args:
      texts: the stop texts, not empty.
      pieces: the bytes of each token.

    Raises:
      ValueError: if the texts have more than 254 bytes together.
    """
    stops = [text.encode() for text in texts]
    states = sorted({stop[:length] for stop in stops for length in range(len(stop))}, key=lambda x: (len(x), x))
    number, N = {state: i for i, state in enumerate(states)}, len(states)
    if N > 254:
        raise ValueError(f"config.rollout.stop={list(texts)}: {N} bytes are too many; use at most 254 together")
    step_NB = np.array([[_step(state + bytes([byte]), stops, number, N) for byte in range(256)] for state in states])
    step_NB = np.concatenate([step_NB, np.full((1, 256), N)]).astype(np.uint8)
    # All tokens at once, by their first byte, their second, …
    length_V = np.array([len(piece) for piece in pieces])
    table = np.tile(np.arange(N, dtype=np.uint8), (len(pieces), 1))
    for place in range(length_V.max(initial=0)):
        (token_I,) = np.nonzero(length_V > place)
        byte_I = np.array([pieces[v][place] for v in token_I])
        table[token_I] = step_NB[table[token_I], byte_I[:, None]]
    return table


def _step(text: bytes, stops: list[bytes], number: dict[bytes, int], complete: int) -> int:
    """Returns the number of the longest end of a text that is a state, or `complete` if the text ends with a stop."""
    if any(text.endswith(stop) for stop in stops):
        return complete
    return next(number[text[start:]] for start in range(len(text) + 1) if text[start:] in number)


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the stop that is complete first, as in the decode loop."""
    ends = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)[1]] if ends else text


def byte_level_pieces(backend: Any, vocab_size: int) -> list[bytes]:
    """Returns the bytes of each id of a byte-level tokenizer; special tokens, which no answer's text shows, have none.

    Args:
      backend: A `tokenizers.Tokenizer`.

    Raises:
      ValueError: if it is no byte-level tokenizer.
    """
    decoder = (json.loads(backend.to_str())["decoder"] or {}).get("type")
    if decoder != "ByteLevel":
        raise ValueError(
            f"config.rollout.stop: texts end an answer only with a byte-level or SentencePiece tokenizer, and this one "
            f"decodes by {decoder}; use config.rollout.stop='' and ids that end an answer"
        )
    # A byte that is no printable character of Latin-1 is written as the next character from 256 on.
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    pieces, added = [b""] * vocab_size, backend.get_added_tokens_decoder()
    for token, i in backend.get_vocab(with_added_tokens=True).items():
        if i in added:
            pieces[i] = b"" if added[i].special else token.encode()
        else:
            pieces[i] = bytes(byte_of[character] for character in token)
    return pieces


def sentencepiece_pieces(processor: Any) -> list[bytes]:
    """Returns the bytes of each id of a `SentencePieceProcessor`; control ids have none."""

    def piece(i: int) -> bytes:
        text = processor.id_to_piece(i)
        if processor.is_control(i):
            return b""
        if processor.is_byte(i):
            return bytes([int(text[1:-1], 16)])
        return " ⁇ ".encode() if processor.is_unknown(i) else text.replace("\u2581", " ").encode()

    return [piece(i) for i in range(processor.vocab_size())]
