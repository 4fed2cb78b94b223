"""The reader of LaTeX environments: matrices with their sums and products, systems of equations, and cases;
and of sets with a name."""

import re

from .cursor import END, Unreadable
from .measures import RELATIONS, SIDE_ENDS, ScalarReader
from .structures import add, group, multiply, scale, to_matrix, transpose
from .tokens import Token
from .values import (
    INFINITY,
    Builder,
    Expression,
    Group,
    Matrix,
    NumberSet,
    Scalar,
    SetExpression,
    Value,
    number,
)  # fmt: skip

_NAMED_SET = re.compile(
    r"(?P<every>(?:all|the|any|every|each|set of) )*(?:(?P<part>positive|negative|non ?-? ?negative|non ?-? ?zero) )?"
    r"(?P<base>real|integer|natural|rational|complex)(?P<many>s)?(?P<number> (?:number|value)s?)?(?: (?:of )?[a-z])?"
)
_BASES = {"real": "ℝ", "integer": "ℤ", "natural": "ℕ", "rational": "ℚ", "complex": "ℂ"}


def named_set(words: str) -> Value | None:
    """Returns the set of numbers that words name: "all positive integers"; None if they name none."""
    match = _NAMED_SET.fullmatch(words)
    if match is None or not (match["every"] or match["many"] or match["number"] or match["base"] == "real"):
        return None
    base, part = _BASES[match["base"]], (match["part"] or "")
    if not part or part in ("positive", "negative"):
        return NumberSet(base + {"": "", "positive": "+", "negative": "-"}[part])
    if part.endswith("zero"):
        return NumberSet(base + "*")
    return Group("[", (Scalar(number(0)), Scalar(INFINITY)), ")") if base == "ℝ" else None


class EnvironmentReader(ScalarReader):
    """Reads environments; `read_all` is that of `AnswerReader`."""

    def _read_matrices(self, factor: Expression | None = None) -> Value:
        """Reads a sum of products of numbers and matrices; `factor` is what has been read of its first product."""
        total = self._read_matrix_product(factor)
        while isinstance(total, Matrix) and self.sees("+", "-"):
            sign = number(1 if self.peek().text == "+" else -1)
            self.at += 1
            factor = None if self.peek().text.startswith("begin ") else self._read_product(None)
            factor = sign if factor is None else ("multiply", sign, factor)
            total = add(total, self._read_matrix_product(factor))
        return total

    def _read_matrix_product(self, factor: Expression | None) -> Value:
        self.take("*")
        product, count = self._read_matrix(), 1
        while isinstance(product, Matrix) and self.peek(self.sees("*")).text.startswith("begin "):
            self.take("*")
            count += 1
            product = multiply(product, self._read_matrix(), count)
        return product if factor is None else scale(factor, product)

    def _read_cases(self) -> Value:
        """Reads the rows of a system of equations as a list, and values with their conditions as a set of these."""
        self.at += 1
        rows: list[list[list[Token]]] = [[[]]]
        with self.nest():
            while not self.take("end cases"):
                token = self.peek()
                if token is END or token.text.startswith("begin "):
                    raise Unreadable("cases are not closed")
                self.at += 1
                if token.text == "¶":
                    goes_on = self.peek(self.sees("&")).text in RELATIONS  # of a chain
                    rows[-1].append([]) if goes_on else rows.append([[]])
                elif token.text == "&":
                    rows[-1].append([])
                else:
                    rows[-1][-1].append(token)
            rows = [row for row in rows if row != [[]]]
            if all(len(row) == 1 or row[1][0].text in RELATIONS for row in rows if row[-1]):
                return group([self._read_row([token for part in row for token in part]) for row in rows])
            pieces = [Builder(self._read_row(value), self._read_row(condition)) for value, condition in rows]
        return Group("cases", tuple(pieces), "cases")

    def _read_row(self, tokens: list[Token]) -> Value:
        while tokens and tokens[0].text.lower() in ("if", "for", "when", "where"):
            tokens = tokens[1:]
        while tokens and tokens[-1].text in (",", ";", "."):
            tokens = tokens[:-1]
        return type(self)(tokens, self.plus_minus, self.depth).read_all()

    def _read_matrix(self, name: str = "") -> Value:
        """Reads a matrix, its transpose or its determinant, also that of another environment by `name`."""
        matrix = self._read_rows(name)
        return transpose(matrix) if self._take_transpose() else matrix

    def _take_transpose(self) -> bool:
        """Moves behind `^T` or `^\\top` if it comes next, and returns whether it did."""
        braces = self.sees("{", ahead=1)
        found = self.sees("^") and self.peek(1 + braces).text in ("T", "top", "intercal")
        self.at += found * (2 + 2 * braces)
        return found

    def _read_rows(self, kind: str) -> Value:
        """Reads rows between `¶`, and entries between `&`."""
        name = self.peek().text.removeprefix("begin ")
        if "matrix" not in name and name != "array":
            raise Unreadable(f"{name} is unknown")
        self.at += 1
        rows: list[list[Scalar]] = [[]]
        with self.nest():
            while not self.take(f"end {name}"):
                if self.take("¶"):
                    rows.append([])
                elif not self.take("&"):
                    rows[-1].append(self._read_scalar())
                    if not self.sees("&", "¶", f"end {name}"):
                        raise Unreadable("an entry of a matrix is no scalar")
        return to_matrix(kind or name, [row for row in rows if row])

    def _read_number_set(self) -> Value:
        name = self.peek().text
        self.at += 1
        if self.sees("^", "_"):
            self.at += 1
            sign = self._read_name() if self.sees("{") else self.peek().text
            self.at += self.tokens[self.at - 1].text != "}"
            name += {"*": "*", "+": "+", "-": "-", "> 0": "+"}.get(sign, f"^{sign}")
        elif self.sees("+", "-") and (self.peek(1) is END or self.sees(*SIDE_ENDS, ahead=1)):
            name += self.peek().text
            self.at += 1
        return NumberSet("ℤ+" if name in ("ℕ+", "ℕ*") else name)

    def _read_exceptions(self, base: str) -> Value:
        """Reads the numbers that "all real numbers except" leaves out."""
        rest = self.tokens[self.at :]
        if any(token.text in ("except", "excluding", "but", "than") for token in rest):  # each would be read twice
            raise Unreadable("an exception has an exception")
        value = type(self)(rest, self.plus_minus, self.depth).read_all()
        self.at = len(self.tokens)
        items = value.items if isinstance(value, Group) and not value.opening else (value,)
        points = tuple(item.sides[-1] if getattr(item, "signs", ()) == ("=",) else item for item in items)
        if not all(isinstance(point, Scalar) for point in points):
            raise Unreadable("an exception is no number")
        return SetExpression((NumberSet("ℤ" if base == "integers" else "ℝ"), Group("{", points, "}")), ("∖",))
