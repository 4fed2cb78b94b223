"""A position in a text, which a reader moves forward token by token."""

import contextlib
import re
from collections.abc import Iterator

from .polynomial import TooBig

DEPTH_LIMIT = 40  # of brackets, exponents and arguments inside one another

_SPACE = re.compile(r"\s*")


class Unreadable(ValueError):
    """The text does not follow the grammar."""


class Scanner:
    """Looks at a text from `start` on. Spaces before a token never count."""

    def __init__(self, text: str, start: int = 0, depth: int = 0):
        self.text = text
        self.at = start
        self.depth = depth

    def skip_spaces(self) -> int:
        """Moves behind the spaces here, and returns the new position."""
        self.at = _SPACE.match(self.text, self.at).end()
        return self.at

    def peek(self) -> str:
        """Returns the next character; the empty text at the end."""
        return self.text[self.skip_spaces() : self.at + 1]

    def is_done(self) -> bool:
        """Returns whether nothing but spaces is left."""
        return self.skip_spaces() >= len(self.text)

    def take(self, token: str) -> bool:
        """Moves behind `token` if it comes next, and returns whether it did."""
        if not self.text.startswith(token, self.skip_spaces()):
            return False
        self.at += len(token)
        return True

    def take_match(self, pattern: re.Pattern) -> re.Match | None:
        """Moves behind what `pattern` matches here, and returns the match; None if it does not match."""
        match = pattern.match(self.text, self.skip_spaces())
        if match is not None:
            self.at = match.end()
        return match

    @contextlib.contextmanager
    def nest(self) -> Iterator[None]:
        """Counts one more level of nesting inside the `with` block.

        Raises:
          TooBig: for more than `DEPTH_LIMIT` levels.
        """
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise TooBig(f"brackets are nested more than {DEPTH_LIMIT} deep")
        yield
        self.depth -= 1
