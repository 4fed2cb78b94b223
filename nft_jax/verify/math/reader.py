"""The reader of answers: lists, tuples, intervals, sets, relations, matrices and words.

It descends recursively over one normalized text; nothing of the text is executed, and its length and depth are bounded.
"""

import re
from functools import lru_cache

from .formula import WORD, FormulaReader, find_known_word, to_polynomial
from .normalize import normalize
from .polynomial import TooBig
from .scanner import Unreadable
from .values import Group, Matrix, Relation, Scalar, SetUnion, Value, Words

LENGTH_LIMIT = 2000  # characters of an answer

_NO_PROSE = re.compile(r"[\\{}=<>≤≥≠≈∈^_∪|]")
_FOREIGN = re.compile(r"[^\x00-\x7f⟦⟧⦃⦄±°]")
_RATIO = re.compile(r"[^:,;=<>]+(?::[^:,;=<>]+){2,}")  # of three or more: of two it is a quotient
_RELATION = re.compile(r"[=<>≤≥≠≈∈]")
_MATRIX = re.compile(
    r"\\(?:begin)\s*\{\s*([bpB]?)(?:small)?matrix\s*\}(.*?)\\end\s*\{\s*[bpB]?(?:small)?matrix\s*\}", re.S
)
_CLOSINGS = {"⦃": "⦄", "{": "}", "]": "[]", "(": ")]", "[": ")]"}  # ]0, 1[ is an open interval


@lru_cache(maxsize=4096)
def parse(text: str) -> Value:
    """Returns the value of an answer, which is normalized first.

    Raises:
      Unreadable: for a text that does not follow the grammar.
      TooBig: for one that is too long, too deep or too costly.
      ZeroDivisionError: for one that divides by 0.
    """
    if len(text) > LENGTH_LIMIT:
        raise TooBig(f"the answer has {len(text)} characters; at most {LENGTH_LIMIT} are read")
    text = normalize(text)
    if not text:
        raise Unreadable("nothing is left of the answer without units and commands of appearance")
    if _is_prose(text):
        return Words(text)
    try:
        if _RATIO.fullmatch(text):
            return Group(":", tuple(_Reader(part).read_all() for part in text.split(":")), ":")
        return _Reader(text).read_all()
    except RecursionError as error:
        raise TooBig("the answer is nested too deeply") from error


def _is_prose(text: str) -> bool:
    """Returns whether a text is words: letters that are no product of variables and no functions."""
    if _NO_PROSE.search(text):
        return False
    if _FOREIGN.search(text):
        return True
    return any(len(word) > 2 and not find_known_word(word) for word in WORD.findall(text))


class _Reader(FormulaReader):
    """Reads an answer of any kind."""

    def read_all(self) -> Value:
        """Reads the whole text."""
        value = self._read_list("")
        if not self.is_done():
            raise Unreadable(f"{self.text[self.at : self.at + 20]!r} is left over")
        return value

    def _read_list(self, closings: str) -> Value:
        """Reads elements between commas and semicolons, up to a bracket of `closings`; one alone is itself."""
        parts: list[list[Value]] = [[]]
        while True:
            if self.peek() not in (",", ";") and not self._is_closed(closings):
                parts[-1].extend(self._read_element())
            if self.take(";"):
                parts.append([])
            elif not self.take(","):
                break
        if len(parts) > 1 and all(len(part) > 1 for part in parts) and not closings:
            items = [Group("", tuple(part), "") for part in parts]
        else:
            items = [item for part in parts for item in part]
        if not items:
            raise Unreadable("a list is empty")
        return items[0] if len(items) == 1 else Group("", tuple(items), "")

    def _is_closed(self, closings: str) -> bool:
        return self.is_done() or (bool(closings) and self.peek() in closings)

    def _read_element(self) -> list[Value]:
        """Reads one element; it becomes two if it contains ±."""
        start = self.at
        value = self._read_relation()
        if "±" not in self.text[start : self.at] or self.plus_minus < 0:
            return [value]
        negative = _Reader(self.text[: self.at], start, self.depth, plus_minus=-1)._read_relation()
        return [value] if negative == value else [value, negative]

    def _read_relation(self) -> Value:
        sides, signs = [self._read_union()], []
        while (match := self.take_match(_RELATION)) is not None:
            signs.append(match.group())
            sides.append(self._read_union())
        return Relation(tuple(sides), tuple(signs)) if signs else sides[0]

    def _read_union(self) -> Value:
        parts = [self._read_side()]
        while self.take("∪"):
            parts.append(self._read_side())
        return SetUnion(tuple(parts)) if len(parts) > 1 else parts[0]

    def _read_side(self) -> Value:
        """Reads a set, a tuple, an interval or a matrix that stands alone, or else a sum."""
        if (matrix := self.take_match(_MATRIX)) is not None:
            return _read_matrix(matrix.group(2))
        if self.peek() in ("(", "[", "⦃", "{", "]"):
            group = self.read_group()
            if not isinstance(group, Scalar) or self._is_side_over():
                return group
            return self.read_sum(to_polynomial(group))  # reading it again would double the work at every depth
        return self.read_sum()

    def _is_side_over(self) -> bool:
        """Returns whether nothing follows that could belong to the same formula."""
        return self.is_done() or self.peek() in ",;)]}⦄=<>≤≥≠≈∈∪&"

    def read_group(self) -> Value:
        """Reads what is between brackets: a set, a tuple, an interval, or the one value inside."""
        opening = self.peek()
        closings = _CLOSINGS[opening]
        with self.nest():
            self.at += 1
            if opening == "⦃" and self.take("⦄"):
                return Group("{", (), "}")
            inner = self._read_list(closings)
            closing = self.peek()
            if not closing or closing not in closings:
                raise Unreadable(f"a bracket {opening} is not closed")
            self.at += 1
        several = isinstance(inner, Group) and not inner.opening
        if opening == "⦃" or (opening == "{" and several):
            return Group("{", inner.items if several else (inner,), "}")
        if several:
            return Group(opening.replace("]", "("), inner.items, closing.replace("[", ")"))
        if (opening, closing) not in (("(", ")"), ("[", "]"), ("{", "}")):
            raise Unreadable(f"{opening} and {closing} stand around one value: an interval needs two")
        return inner


def _read_matrix(body: str) -> Matrix:
    """Reads rows between `¶`, and entries between `&`."""
    rows = [row for row in body.split("¶") if row.strip()]
    entries = tuple(tuple(_read_entry(entry) for entry in row.split("&")) for row in rows)
    if not entries or len({len(row) for row in entries}) != 1:
        raise Unreadable("the rows of a matrix differ in length")
    return Matrix(entries)


def _read_entry(text: str) -> Scalar:
    value = _Reader(text).read_all()
    if not isinstance(value, Scalar):
        raise Unreadable("an entry of a matrix is no number and no formula")
    return value
