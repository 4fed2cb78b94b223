"""The reader of scalars with what stands around them: currency, percent signs, powers of ten in words, and units."""

import itertools
import re

from .cursor import END, Unreadable
from .formula import FormulaReader
from .identity import variables
from .tokens import Token
from .units import CURRENCY, KNOWN, LETTER_UNITS, MONEY, measure
from .values import Congruence, Expression, Group, Scalar, Value, number
from .words import ORDINALS, OTHER_SCALES, SCALES, is_unit, number_in_words

RELATIONS = ("=", "<", ">", "≤", "≥", "≠", "≈", "∈", "∉", "≡")
SIDE_ENDS = {*RELATIONS, ",", ";", ")", "]", "}", "⦄", "⟩", "∪", "∩", "∖", "&", "¶", ":", "|", "→"}
_MODULUS = ("pmod", "bmod", "mod", "modulo")


class ScalarReader(FormulaReader):
    """Reads scalars; `_read_words_or_fail` and `read_all` are those of `AnswerReader`."""

    def _read_scalar(self, first: Expression | None = None) -> Value:
        """Reads a formula with its percent sign or unit."""
        currency = self._take_currency()
        start = self.at
        if self.peek().text.lower() in ("minus", "negative") and self.peek(1).kind in ("number", "command"):
            self.tokens[start] = Token("symbol", "-")
        if self.peek().kind == "word" and first is None:
            return self._read_words()
        if first is None and (split := self._find_letter_unit()) is not None:
            return self._read_with_letter_unit(split)
        expression = self.read_sum(first)
        digits = None
        literal = "".join(token.text for token in self.tokens[start : self.at])
        if first is None and re.fullmatch(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?", literal):
            digits = literal.lstrip("+")
        value = self._read_suffix(expression, digits)
        return value if value.unit or value.percent else value._replace(unit=currency)

    def _read_suffix(self, expression: Expression, digits: str | None) -> Scalar:
        """Reads a word for a power of ten, a percent sign and a unit."""
        while (scale := self._scale()) is not None:
            expression, digits = ("multiply", expression, number(scale)), None
            self.at += 1
        words = [self.peek(ahead).text for ahead in range(2)]
        if words == ["out", "of"] or words[0] == "in" and self.peek(1).kind == "number" and self.peek(2) is END:
            self.at += 1 + (words[0] == "out")
            expression, digits = ("divide", expression, self.read_sum()), None
        percent = self._take_percent()
        is_share = percent and self.peek().text == "of"  # 40% of the students
        unit = "" if variables(expression) or percent and not is_share else self._read_unit(expression)
        unit = "" if percent else unit
        behind = 1 if self.peek().text == "and" else 0
        if unit and self.peek(behind).kind == "number":  # 2 hours (and) 30 minutes
            start = self.at
            self.at += behind
            rest = self._read_scalar()
            sizes = [measure(unit), measure(getattr(rest, "unit", "") or "?")]
            if None not in sizes and sizes[0][1] == sizes[1][1]:
                rest = ("multiply", rest.expression, number(sizes[1][0] / sizes[0][0]))
                if not behind or rest[1][0] == "number" and rest[1][1] * rest[2][1] < 1:
                    return Scalar(("add", expression, rest), None, percent, unit)
            if not behind:
                raise Unreadable("a number stands behind a unit")
            self.at = start  # it is the next of a list
        return Scalar(expression, digits, percent, unit)

    def _scale(self) -> int | None:
        token = self.peek()
        if token.kind != "word":
            return None
        name = token.text.lower().removesuffix("s")
        return SCALES.get(name) or OTHER_SCALES.get(name)

    def _take_percent(self) -> bool:
        words = [self.peek(ahead).text.lower() for ahead in range(2)]
        if self.take("%"):
            return True
        count = 1 if words[0] in ("percent", "pct", "percentage") else 2 * (words == ["per", "cent"])
        self.at += count
        return count > 0

    def _take_currency(self) -> str:
        """Takes a sign or a name of money before a number, also behind its minus, and returns it."""
        place = self.sees("-", "+")
        token = self.peek(place)
        if self.sees(*CURRENCY, ahead=place):
            del self.tokens[self.at + place]
        elif token.kind == "word" and token.text.lower() in MONEY:
            behind = 1 + self.sees(".", ahead=1)
            if self.peek(behind).kind != "number":
                return ""
            self.at += behind
        else:
            return ""
        return token.text

    def _read_words(self) -> Value:
        """Reads a number in words with its unit, or else words."""
        start, words = self.at, []
        while (
            self.peek().kind == "word"
            or words
            and (self.sees("-") and self.peek(1).kind == "word" or self.peek().text == "a")
        ):
            words.append(self.peek().text)
            self.at += 1
        for count in range(len(words), 0, -1):
            value = number_in_words([word for word in words[:count] if word != "-"])
            is_label = count == 1 < len(words) and words[0].lower() in ORDINALS  # the first player
            if value is not None and not is_label:
                self.at = start + count
                return self._read_suffix(number(value), None)
        self.at = start
        return self._read_words_or_fail()

    def _read_unit(self, count: Expression) -> str:
        """Reads the words behind a number, up to the end of the element; none if they are no unit."""
        start, parts, depth = self.at, [], 0
        while depth or not self._is_element_over():
            token = self.peek()
            depth += (token.text in ("(", "{")) - (token.text in (")", "}"))
            if token.kind == "number" and token.gap and parts and not depth and parts[-1].isalpha():
                break
            if token is END or not _can_be_in_unit(token, parts):
                self.at = start
                return ""
            if token.kind == "number" and parts and parts[-1] in KNOWN:  # cm2
                parts.append("^")
            parts.append(token.text)
            self.at += 1
        words = [part for part in parts if part.isalpha() and part != "frac"]
        is_half = "".join(words).lower() in ("am", "pm")
        is_counted = is_unit(words, _is_at_most_one(count))
        if parts and (is_half or not is_counted or not words and not set(parts) & set(f"{CURRENCY}°")):
            self.at = start
            return ""
        return " ".join(parts)

    def _is_element_over(self) -> bool:
        token = self.peek()
        if token.kind == "word":
            return token.text.lower() in ("and", "or", "to") or token.text == "out"
        return token is END or (token.kind == "symbol" and token.text in SIDE_ENDS)

    def _find_letter_unit(self) -> int | None:
        """Returns where a unit of one letter begins behind a number (`5 m^2`); None if there is none."""
        position, depth = self.at, 0
        while position < len(self.tokens):
            token = self.tokens[position]
            depth += token.text in ("(", "{", "[")
            depth -= token.text in (")", "}", "]")
            if depth < 0:
                return None
            if token.kind == "letter":
                is_unit_letter = (
                    depth == 0 and token.text in LETTER_UNITS and (token.gap or token.upright or token.text == "Omega")
                )
                is_behind_value = position > self.at and self.tokens[position - 1].text not in "+-*/^_(|±∓"
                return position if is_unit_letter and is_behind_value and self._is_unit(position) else None
            if token.kind == "word" or token.text in SIDE_ENDS - {")", "]", "}"}:
                return None
            position += 1
        return None

    def _is_unit(self, position: int) -> bool:
        """Returns whether what stands between a position and the end of the side is a known unit."""
        rest = itertools.takewhile(lambda token: token.text not in SIDE_ENDS - {"}", ")"}, self.tokens[position:])
        return measure(" ".join(token.text for token in rest)) is not None

    def _read_with_letter_unit(self, split: int) -> Scalar:
        inner = type(self)(self.tokens[self.at : split], self.plus_minus, self.depth + 1)
        value = inner.read_all()
        if not isinstance(value, Scalar):
            raise Unreadable("a unit stands behind a list")
        product = self.read_sum()
        unit = " ".join(token.text for token in self.tokens[split : self.at])
        return value._replace(unit=unit, product=product)

    def _sees_modulus(self) -> bool:
        return self.peek(self.sees("(")).text in _MODULUS

    def _read_congruences(self, sides: list[Value]) -> Value:
        """Reads one congruence, or those of several residues: `x ≡ 1, 3 (mod 4)`."""
        residues = [sides.pop()]
        while not self._sees_modulus() and (self.take(",") or self.peek().text in ("and", "or")):
            self.at += self.peek().text in ("and", "or")
            residues.append(self._read_ratio())
        first = self._read_congruence([*sides, residues[-1]])
        residues[-1] = first.right
        return Group("≡", tuple(first._replace(right=residue) for residue in residues), "≡") if residues[1:] else first

    def _read_congruence(self, sides: list[Value]) -> Value:
        if len(sides) != 2:
            raise Unreadable("a congruence stands in a chain")
        left, right = sides
        in_brackets = self.sees("(")
        self.at += in_brackets
        if isinstance(right, Scalar) and right.expression[0] == "mod":
            right, modulus = Scalar(right.expression[1]), Scalar(right.expression[2])
        else:
            if self.peek().text not in _MODULUS:
                raise Unreadable("a congruence has no modulus")
            self.at += 1
            modulus = Scalar(self.read_argument())
            if in_brackets:
                self.expect(")")
        if not all(isinstance(side, Scalar) and not side.percent for side in sides):
            raise Unreadable("a congruence is of no numbers")
        return Congruence(left, right, modulus)


def _is_at_most_one(count: Expression) -> bool:
    """Returns whether a number, also a fraction of two, is one or less."""
    name, *parts = count
    if name == "negative":
        return _is_at_most_one(parts[0])
    if name == "divide":
        return parts[0][0] == parts[1][0] == "number" and abs(parts[0][1]) <= abs(parts[1][1])
    return name == "number" and abs(parts[0]) <= 1


def _can_be_in_unit(token: Token, before: list[str]) -> bool:
    if token.kind == "word" or token.text == "frac":
        return True
    if token.kind == "letter":
        return token.text in LETTER_UNITS or bool(before) and token.text == "a"  # miles a day
    if token.kind == "number":
        is_exponent = "".join(before[-3:]).endswith(("^", "^{", "^-", "^{-"))
        return is_exponent or bool(before) and before[-1] in KNOWN and not token.gap
    return token.kind == "symbol" and token.text in f"/^*.-{{}}()°{CURRENCY}"
