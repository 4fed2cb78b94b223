"""A position in the tokens of an answer."""

import contextlib
from collections.abc import Iterator, Sequence

from .tokens import Token

DEPTH_LIMIT = 40  # of brackets, exponents and arguments inside one another

END = Token("end", "")


class Unreadable(ValueError):
    """The text does not follow the grammar."""


class Cursor:
    """Looks at tokens from `at` on.

    Attributes:
      plus_minus: the sign that ± stands for.
      signs: how many ± and ∓ of the current element have been read.
    """

    def __init__(self, tokens: Sequence[Token], plus_minus: int = 1, depth: int = 0):
        self.tokens = list(tokens)
        self.at = 0
        self.plus_minus = plus_minus
        self.depth = depth
        self.signs = 0
        self._bars = 0

    def peek(self, ahead: int = 0) -> Token:
        """Returns a token without moving; `END` behind the last one."""
        position = self.at + ahead
        return self.tokens[position] if position < len(self.tokens) else END

    def sees(self, *texts: str, ahead: int = 0) -> bool:
        """Returns whether one of these symbols comes next."""
        token = self.peek(ahead)
        return token.kind == "symbol" and token.text in texts

    def sees_end_bracket(self) -> bool:
        """Returns whether a `[` comes next that closes an interval: `]0, 1[`."""
        return self.sees("[") and (self.peek(1) is END or self.sees(",", ";", "∪", "∩", "∖", ")", "⦄", ahead=1))

    def sees_command(self, *names: str) -> bool:
        """Returns whether one of these commands comes next."""
        token = self.peek()
        return token.kind == "command" and token.text in names

    def take(self, *texts: str) -> bool:
        """Moves behind one of these symbols if it comes next, and returns whether it did."""
        found = self.sees(*texts)
        self.at += found
        return found

    def expect(self, text: str) -> None:
        """Moves behind a symbol. Raises Unreadable if something else comes next."""
        if not self.take(text):
            raise Unreadable(f"{text!r} is missing before {self.peek().text!r}")

    @contextlib.contextmanager
    def nest(self) -> Iterator[None]:
        """Counts one more level of nesting. Raises Unreadable for more than `DEPTH_LIMIT`."""
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise Unreadable(f"it is nested more than {DEPTH_LIMIT} deep")
        yield
        self.depth -= 1

    def _read_name(self) -> str:
        """Reads a subscript: a bracket with any tokens, or one token."""
        if not self.sees("{"):
            token = self.peek()
            if token.kind not in ("number", "letter", "word"):
                raise Unreadable("a subscript is missing")
            self.at += 1
            return token.text
        start, depth = self.at + 1, 0
        while self.peek() is not END:
            depth += self.sees("{") - self.sees("}")
            self.at += 1
            if depth == 0:
                name = " ".join(token.text for token in self.tokens[start : self.at - 1])
                if name:
                    return name
                break
        raise Unreadable("a subscript is empty")
