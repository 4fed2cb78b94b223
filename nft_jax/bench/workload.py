"""What a benchmark works on: answers as long as one says."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nft_jax.config import Config
from nft_jax.rollout.state import Requests
from nft_jax.step import Step
from nft_jax.types import Array, Prompts

DRAWN = 4096  # lengths, before they come again


class Lengths(NamedTuple):
    """How long answers are.

    `told`      in words: full, ends:N, fixed:N or lognormal:MEDIAN:SIGMA
    `ends`      so many ids end an answer
    `forced_B`  int32, lengths by request number modulo their number; None where only the ids and the limit end an answer
    """

    told: str
    ends: int = 0
    forced_B: np.ndarray | None = None


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
                return Lengths(told, forced_B=np.array([int(number)], np.int32))
            case ["lognormal", median, sigma] if float(median) > 0 and float(sigma) >= 0:
                drawn_B = float(median) * np.exp(float(sigma) * np.random.default_rng(0).normal(size=DRAWN))
                return Lengths(told, forced_B=np.clip(np.round(drawn_B), 1, T).astype(np.int32))
    except ValueError:
        pass
    raise ValueError(
        f"--lengths={told}: use full, ends:N (N ids end an answer, fewer than config.model.vocab={V}), fixed:N (N "
        f"tokens, at most config.rollout.max_answer_tokens={T}), or lognormal:MEDIAN:SIGMA such as lognormal:50:0.8"
    )


@dataclasses.dataclass(frozen=True)
class LimitedStep(Step):
    """A step whose answers end at given lengths: `limit_B`, int32, by request number modulo their number."""

    limit_B: np.ndarray

    def next_requests(self, prompts: Prompts, cursor: Array) -> Requests:
        """Requests the same answers, with these limits."""
        requests = super().next_requests(prompts, cursor)
        return requests._replace(limit_QK=jnp.asarray(self.limit_B)[requests.request_QK % self.limit_B.size])


def limit_answers(step: Step, lengths: Lengths) -> Step:
    """Makes a step whose answers end at these lengths."""
    if lengths.forced_B is None:
        return step
    parts = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return LimitedStep(**parts, limit_B=lengths.forced_B)
