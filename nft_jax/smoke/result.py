"""The result of a check."""

from typing import NamedTuple


class CheckFailure(Exception):
    """A check's finding that something is wrong."""


class CheckResult(NamedTuple):
    """A check and its result.

    Attributes:
      check: name of the check.
      passed: whether it passed.
      seconds: how long it took.
      message: what it found.
    """

    check: str
    passed: bool
    seconds: float
    message: str

    def line(self) -> str:
        """Returns the result in one line."""
        return f"{'ok    ' if self.passed else 'FAILED'} {self.check:<12} {self.seconds:6.1f} s  {self.message}"
