"""The result of a check."""

from typing import NamedTuple


class CheckFailure(Exception):
    """A check found an error."""


class CheckResult(NamedTuple):
    """The result of a check; `message` is what it found."""

    check: str
    passed: bool
    seconds: float
    message: str

    def line(self) -> str:
        """Returns the result in one line."""
        return f"{'ok    ' if self.passed else 'FAILED'} {self.check:<12} {self.seconds:6.1f} s  {self.message}"
