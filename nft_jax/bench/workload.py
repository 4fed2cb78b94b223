"""What a benchmark works on: answers as long as one says."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nft_jax.config import Config
from nft_jax.rollout.engine import Engine

DRAWN = 4096  # lengths, before they come again


class Lengths(NamedTuple):
    """How long answers are.

    `told`      in words: full, ends:N, fixed:N or lognormal:MEDIAN:SIGMA
    `ends`      so many ids end an answer
    `forced_N`  int32, lengths by request number modulo N; None where only the ids and the limit end an answer
    """

    told: str
    ends: int = 0
    forced_N: np.ndarray | None = None


def read_lengths(told: str, config: Config) -> Lengths:
    """The lengths that `--lengths` says.

    Raises:
      ValueError: for anything else, with what there is.
    """
    V, T = config.model.vocab, config.rollout.max_answer_tokens
    try:
        match told.split(":"):
            case ["full"]:
                return Lengths(told)
            case ["ends", number] if 0 < int(number) < V:
                return Lengths(told, ends=int(number))
            case ["fixed", number] if 0 < int(number) <= T:
                return Lengths(told, forced_N=np.array([int(number)], np.int32))
            case ["lognormal", median, sigma] if float(median) > 0 and float(sigma) >= 0:
                drawn_N = float(median) * np.exp(float(sigma) * np.random.default_rng(0).normal(size=DRAWN))
                return Lengths(told, forced_N=np.clip(np.round(drawn_N), 1, T).astype(np.int32))
    except ValueError:
        pass
    raise ValueError(
        f"--lengths={told}: use full, ends:N (N ids end an answer, fewer than config.model.vocab={V}), fixed:N (N "
        f"tokens, at most config.rollout.max_answer_tokens={T}), or lognormal:MEDIAN:SIGMA such as lognormal:50:0.8"
    )


def limited(engine: Engine, lengths: Lengths) -> Engine:
    """The engine, made to end answers at these lengths."""
    if lengths.forced_N is not None:
        forced_N = lengths.forced_N
        engine.limit = lambda request_B: jnp.asarray(forced_N)[request_B % forced_N.size]
    return engine
