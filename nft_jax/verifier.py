"""The verifier of a run: the processes that grade answers, and the program's way to them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from nft_jax.config import VerifyConfig
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.verify.callback import Grader
from nft_jax.verify.grade import OutcomeError
from nft_jax.verify.pool.pool import Pool
from nft_jax.verify.pool.process import StartError

# What a new grader is tried on: a response, and the answer that counts as correct.
TRIAL = ("\\boxed{1}", "1")


@dataclasses.dataclass(frozen=True)
class Verifier:
    """The grading processes of a run.

    Attributes:
      config: How they grade.
      pool: The processes of the grader.
      second_pool: Those of the second grader, or None.
    """

    config: VerifyConfig
    pool: Pool
    second_pool: Pool | None = None

    def grader(self, tokenizer: Tokenizer, references: Sequence[str]) -> Grader:
        """Returns the host's side of grading answers to problems with these reference answers."""
        seconds = self.config.seconds_per_round
        return Grader(self.pool, tokenizer.decode_batch, references, seconds, self.second_pool)

    @property
    def activity(self) -> str:
        """What each grading process is doing now, for a person to read."""
        return "; ".join(pool.activity for pool in (self.pool, self.second_pool) if pool is not None)

    @property
    def description(self) -> str:
        """The graders, and how their processes are isolated, for a person to read."""
        config = self.config
        second = f", compared with {config.second_grader}" if config.second_grader else ""
        isolated = "isolated" if self.pool.isolated else "not isolated"
        if not self.pool.isolated and config.isolation == "auto":
            own = "a grader of your own: config.verify.isolation=required does"
            isolated += f" ({own if ':' in config.grader else 'pip install seccompy, on Linux'})"
        rewards = f", correct from a reward of {config.correct_from:g}" if config.graded else ""
        return f"{config.grader}{rewards}{second}; {config.workers} processes, {isolated}"


@contextlib.contextmanager
def open_verifier(config: VerifyConfig) -> Iterator[Verifier]:
    """Starts the grading processes, which end with the `with` block; raises as `start_pool`."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(start_pool(config, "grader"))
        second_pool = stack.enter_context(start_pool(config, "second_grader")) if config.second_grader else None
        yield Verifier(config, pool, second_pool)


def start_pool(config: VerifyConfig, setting: str) -> Pool:
    """Starts the processes of the grader that a setting names: "grader" or "second_grader".

    Raises:
      ValueError: For a grader that does not exist, does not start, or returns what is no judgment.
    """
    grader = getattr(config, setting)
    try:
        pool = Pool(
            grader,
            workers=config.workers,
            item_seconds=config.seconds_per_answer,
            memory_mib=config.worker_memory_mib,
            isolation=config.isolation,
            correct_from=config.correct_from,
        )
    except (StartError, ValueError) as error:
        raise ValueError(f"config.verify.{setting}={grader!r}: {error}") from error
    if ":" in grader and (reason := _try(pool, config.seconds_per_answer)):
        pool.close()
        raise ValueError(f"config.verify.{setting}={grader!r}: {reason}")
    return pool


def _try(pool: Pool, seconds: float) -> str:
    r"""Grades `\boxed{1}` as an answer to 1; returns what is wrong if a grader returns what is no judgment, else ""."""
    batch = pool.begin(seconds)
    batch.add([TRIAL])
    verdict = batch.collect()[0]
    return verdict.reason if verdict.reason.startswith(OutcomeError.__name__) else ""
