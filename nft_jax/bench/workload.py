"""The lengths of a benchmark's answers."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nft_jax.config import Config
from nft_jax.rollout.state import Requests
from nft_jax.step import Step
from nft_jax.types import Array, Prompts

PERIOD = 4096  # random lengths, which then repeat


class Lengths(NamedTuple):
    """The lengths of answers.

    Attributes:
      text: full, ends:N, fixed:N or lognormal:MEDIAN:SIGMA.
      ends: number of ids that end an answer.
      forced_B: int32, lengths by request number modulo their number; None if only the ids and the limit end an answer.
    """

    text: str
    ends: int = 0
    forced_B: np.ndarray | None = None


def read_lengths(text: str, config: Config) -> Lengths:
    """Reads the value of `--lengths`.

    Raises:
      ValueError: for any other text.
    """
    V, T = config.model.vocab, config.rollout.max_answer_tokens
    try:
        match text.split(":"):
            case ["full"]:
                return Lengths(text)
            case ["ends", number] if 0 < int(number) < V:
                return Lengths(text, ends=int(number))
            case ["fixed", number] if 0 < int(number) <= T:
                return Lengths(text, forced_B=np.array([int(number)], np.int32))
            case ["lognormal", median, sigma] if float(median) > 0 and float(sigma) >= 0:
                drawn_B = float(median) * np.exp(float(sigma) * np.random.default_rng(0).normal(size=PERIOD))
                return Lengths(text, forced_B=np.clip(np.round(drawn_B), 1, T).astype(np.int32))
    except ValueError:
        pass
    raise ValueError(
        f"--lengths={text}: use full, ends:N (N ids end an answer, fewer than config.model.vocab={V}), fixed:N (N "
        f"tokens, at most config.rollout.max_answer_tokens={T}), or lognormal:MEDIAN:SIGMA such as lognormal:50:0.8"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitedStep(Step):
    """A step whose answers end at `limit_B`: int32, by request number modulo their number."""

    limit_B: np.ndarray

    def next_requests(self, prompts: Prompts, cursor: Array, draw_RQ: Array | None = None) -> Requests:
        """Returns the same requests, with these limits."""
        requests = super().next_requests(prompts, cursor, draw_RQ)
        return requests._replace(limit_QK=jnp.asarray(self.limit_B)[requests.request_QK % self.limit_B.size])


def limit_answers(step: Step, lengths: Lengths) -> Step:
    """Returns a step whose answers end at these lengths."""
    if lengths.forced_B is None:
        return step
    parts = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return LimitedStep(**parts, limit_B=lengths.forced_B)
