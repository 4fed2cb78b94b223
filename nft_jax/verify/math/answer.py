"""The reader of answers: lists, brackets, relations, sets, ratios and matrices."""

import re

from .cursor import END, Unreadable
from .environments import EnvironmentReader, named_set
from .functions import to_expression
from .identity import variables
from .measures import RELATIONS, SIDE_ENDS
from .relations import WORDS
from .structures import close, fold, group, to_text, transpose
from .values import (
    ANY,
    ELLIPSIS,
    Builder,
    Group,
    NumberSet,
    Ratio,
    Relation,
    Scalar,
    SetExpression,
    Value,
    number,
)  # fmt: skip
from .words import HEDGE

_CLOSINGS = {"⦃": "⦄", "{": "}", "]": "[]", "(": ")][", "[": ")][", "⟨": "⟩"}  # ]0, 1[ is an open interval
_EMPTY = re.compile(
    r"(?:(?:there (?:are|is|exists?)|(?:it|(?:the|this) (?:equation|system|inequality)) has) )?"
    r"no (?:real )?(?:solutions?|roots?)(?: exists?)?|(?:the )?(?:empty|null) set"
)
_EXCEPT = re.compile(
    r"(?:(?:all|the|any|set|of) )*(?P<base>real(?: numbers?| values?)?|reals|integers|numbers)(?: (?:of )?[a-z])? "
    r"(?:except|excluding|but|other than)(?: for)?(?= )"
)
_ALL = re.compile(r"(?:all|any|every) (?:real |values? |of |numbers? )*(?=[a-z] [=<>≤≥≠])")  # all real x > 2
_ENDS = ("and", "or", "|", "over", "choose")


class AnswerReader(EnvironmentReader):
    """Reads an answer of any kind."""

    _in_element = False  # whether it reads what is between brackets other than those of a set

    def read_all(self) -> Value:
        """Reads all tokens."""
        value = self._read_list("")
        if self.peek() is not END:
            raise Unreadable(f"{self.peek().text!r} is left over")
        return value

    # Lists and brackets

    def _read_list(self, closings: str) -> Value:
        """Reads elements between commas, semicolons, "and" and "or", up to a bracket of `closings`."""
        parts: list[list[Value]] = [[]]
        conjunction, is_tight = "", False
        while True:
            parts[-1].extend(self._read_element())
            if self.take(";"):
                parts.append([])
                if self._is_closed(closings):
                    break
                continue
            gap = self.peek().gap
            comma = self.take(",")
            is_tight = not gap and not self.peek().gap if comma else is_tight
            word = {"∪": "or", "∩": "and"}.get(self.peek().text, self.peek().text.lower())
            if word in ("and", "or"):
                self.at += 1
                if conjunction and word != conjunction:
                    raise Unreadable("a list has both and and or")
                conjunction = word
            elif not comma:
                break
            if self._is_closed(closings):
                if not comma:
                    raise Unreadable("a list ends with a connective")
                break
        if is_tight and not conjunction and list(map(len, parts)) == [2]:
            conjunction = ","
        parts = [part for part in parts if part]
        if len(parts) > 1 and any(len(part) > 1 for part in parts) and not closings:
            items = [group(part) for part in parts]
        else:
            items = [item for part in parts for item in part]
        return items[0] if len(items) == 1 else Group("", tuple(items), "", conjunction)

    def _is_closed(self, closings: str) -> bool:
        return self.peek() is END or self.sees(*closings) and (not self.sees("[") or self.sees_end_bracket())

    def _read_element(self) -> list[Value]:
        """Reads one element; it becomes two if it contains ±, unless it is inside another element."""
        start, tokens, before = self.at, list(self.tokens), self.signs
        value = self._read_relation()
        if isinstance(value, Group) and value.opening == "≡":
            return list(value.items)
        if self._in_element or self.signs == before:
            return [value]
        self.signs = before
        part = tokens[start : len(tokens) - len(self.tokens) + self.at]
        other = AnswerReader(part, -self.plus_minus, self.depth + 1)._read_relation()
        return [value] if other == value else [value, other]

    def _read_relation(self) -> Value:
        start = self.at
        try:
            first = self._read_union()
            if not self._is_side_over() and self.peek().text not in _ENDS and not self._sees_modulus():
                raise Unreadable(f"{self.peek().text!r} is left over")
        except Unreadable:
            first = self._read_named_side(start)
        if isinstance(first, Scalar) and self._sees_modulus():
            return self._read_congruence([Scalar(ANY), first])
        sides, signs, is_congruence = [first], [], False
        while self.sees(*RELATIONS):
            signs.append(self.peek().text)
            self.at += 1
            sides.append(self._read_union())
            is_congruence = is_congruence or signs[-1] == "≡"
            if is_congruence and signs[-1] in "≡=":
                before = self.at
                try:
                    return self._read_congruences([first, sides[-1]])  # of a chain, the ends
                except Unreadable:  # f(x) ≡ 0
                    self.at, signs[-1] = before, "="
        return Relation(tuple(sides), tuple(signs)) if signs else sides[0]

    def _read_named_side(self, start: int) -> Value:
        r"""Reads what no formula is but stands before `=`, as a name: `\text{Area of the square}`."""
        depth = 0
        for position in range(start, len(self.tokens)):
            token = self.tokens[position]
            if token.kind == "symbol":
                depth += (token.text in "([⦃{") - (token.text in ")]⦄}")
                if depth == 0 and token.text == "=" and position > start:
                    part = self.tokens[start:position]
                    has_word = any(each.kind == "word" for each in part)
                    if any(each.text in "+-*/^" for each in part) and not has_word:
                        break  # a formula that is not read
                    name = WORDS * has_word + " ".join(map(fold, part))
                    if HEDGE.search(name) or set(name) & set("%#!?@&~"):
                        break
                    self.at = position
                    return Scalar(("symbol", name))
                if depth < 0 or depth == 0 and token.text in (",", ";", *RELATIONS[1:], "→", "⇒", "↦"):
                    break
            elif token.kind == "number" and depth == 0 and self.tokens[position - 1].text not in ("^", "_"):
                break
        self.at = start
        return self._read_words_or_fail()

    def _read_words_or_fail(self) -> Value:
        """Reads words, with the letters and numbers between them, up to the end of the element."""
        start = self.at
        text = " ".join(token.text.lower() for token in self.tokens[start : start + 12])
        if found := _EXCEPT.match(text) or _ALL.match(text):
            self.at += len(found.group().split())
            return self._read_side() if found.re is _ALL else self._read_exceptions(found["base"])
        while self.peek().kind in ("word", "letter", "number") or self.sees("-", "'", "."):
            if self.peek().text.lower() in ("and", "or"):
                break
            self.at += 1
        part = self.tokens[start : self.at]
        if not any(token.kind == "word" for token in part):
            raise Unreadable(f"{self.peek().text!r} begins no value")
        words = " ".join(map(fold, part))
        if _EMPTY.fullmatch(words):
            return Group("{", (), "}")
        return named_set(words) or to_text(part)

    def _read_union(self) -> Value:
        parts, signs = [self._read_ratio()], []
        while self._sees_set_sign(parts[-1]):
            signs.append({"-": "∖", "U": "∪", "union": "∪"}.get(self.peek().text, self.peek().text))
            self.at += 1
            parts.append(self._read_side())
        return SetExpression(tuple(parts), tuple(signs)) if signs else parts[0]

    def _sees_set_sign(self, before: Value) -> bool:
        """Returns whether a sign between sets follows; one behind a number stands between conditions."""
        if isinstance(before, Scalar) and not variables(before.expression):
            return False
        is_letter = isinstance(before, Group) and self.peek().text in ("U", "union") and self.peek(1) is not END
        return self.sees("∪", "∩", "∖") or is_letter or isinstance(before, NumberSet) and self.sees("-")

    def _read_ratio(self) -> Value:
        """Reads a side, and the terms that colons or "to" separate from it."""
        start = self.at
        first = self._read_side()
        terms = [first]
        while self.sees(":") and isinstance(terms[-1], Scalar) and not self._bars:
            self.at += 1
            terms.append(self._read_side())
        if self.peek().text == "to" and self.peek().kind == "word" and len(terms) == 1:
            self.at += 1
            terms.append(self._read_side())
        if len(terms) == 1:
            return self._read_hour(first)
        if not all(isinstance(term, Scalar) for term in terms):
            raise Unreadable("a ratio is of no numbers")
        terms = [Scalar(to_expression(term)) if term.percent else term for term in terms]
        texts = [token.text for token in self.tokens[start : self.at] if token.kind == "number"]
        clock = len(terms) == 2 and self.at == start + 3 and bool(re.fullmatch(r"\d{1,2}:[0-5]\d", ":".join(texts)))
        return Ratio(tuple(terms), clock, self._read_half() if clock else "")

    def _read_hour(self, value: Value) -> Value:
        """Returns the time of day for "7 pm"; any other value as it is."""
        half = self._read_half() if getattr(value, "digits", None) in map(str, range(1, 13)) else ""
        return Ratio((value, Scalar(number(0))), True, half) if half else value

    def _read_half(self) -> str:
        half = self.peek().text.lower()
        half = half if half in ("am", "pm") else ""
        self.at += bool(half)
        return half

    def _read_side(self) -> Value:
        """Reads a set, a tuple, an interval or a matrix that stands alone, or else a scalar."""
        token = self.peek()
        if token.kind == "symbol" and token.text.startswith("begin "):
            return self._read_cases() if token.text == "begin cases" else self._read_matrices()
        if token.kind == "symbol" and token.text in "ℝℤℕℚℂ":
            return self._read_number_set()
        if self.sees_command("det") and self.peek(1).text.startswith("begin "):
            self.at += 1
            return self._read_matrix("vmatrix")
        if self.sees_command("emptyset", "ldots"):
            self.at += 1
            return Group("{", (), "}") if token.text == "emptyset" else self._read_ellipsis()
        if self.sees("(", "[", "⦃", "{", "]", "⟨"):
            start, tokens = self.at, list(self.tokens)
            group = self.read_group()
            if isinstance(group, Group) and self._take_transpose():
                return transpose(group)
            if not isinstance(group, Scalar) or self._is_side_over():
                return group
            if self.take("_"):  # (52)_8
                base = self._read_name()
                digits = "".join(token.text for token in tokens[start + 1 : self.at] if token.kind == "number")
                return Scalar(("symbol", f"{digits.removesuffix(base)} base {base}"))
            # Reading the brackets again would double the work at every depth.
            return self._read_scalar(self._read_power(to_expression(group)))
        if self.sees("-") and self.peek(1).text.startswith("begin "):
            self.at += 1
            return self._read_matrices(number(-1))
        value = self._read_scalar()
        if isinstance(value, Scalar) and self.peek().text.startswith("begin "):
            return self._read_matrices(to_expression(value))
        return value

    def _read_ellipsis(self) -> Value:
        """Returns the item of a list that stands for those left out."""
        if self.tokens[self.at - 2].text != "," or self.at < 2 or not self._is_element_over():
            raise Unreadable("dots stand for a part of a formula")
        return Scalar(ELLIPSIS)

    def _is_side_over(self) -> bool:
        """Returns whether nothing follows that could belong to the same formula."""
        token = self.peek()
        is_end = token.kind == "symbol" and token.text in SIDE_ENDS and token.text != "|"
        return token is END or is_end or self.sees_end_bracket()

    def read_group(self) -> Value:
        """Reads what is between brackets: a set, a tuple, an interval, or the one value inside."""
        opening = self.peek().text
        if opening not in _CLOSINGS:
            raise Unreadable(f"{opening!r} is no bracket")
        closings = _CLOSINGS[opening]
        with self.nest():
            self.at += 1
            if opening == "⦃" and self.take("⦄"):
                return Group("{", (), "}")
            before = self._bars, self._in_element
            self._bars, self._in_element = int(opening == "⦃"), opening != "⦃"
            inner = self._read_inside(opening, closings)
            self._bars, self._in_element = before
            closing = self.peek().text
            if not self.sees(*closings):
                raise Unreadable(f"a bracket {opening} is not closed")
            self.at += 1
        return close(opening, inner, closing)

    def _read_inside(self, opening: str, closings: str) -> Value:
        inner = self._read_list(closings)
        if opening == "⦃" and self.take("|", ":"):
            bars, self._bars = self._bars, 0
            condition = self._read_list(closings)
            self._bars = bars
            return Builder(inner, condition)
        if opening == "{" and self.sees_command("over", "choose"):
            name = self.peek().text
            self.at += 1
            bottom = to_expression(self._read_list(closings))
            return Scalar(("divide" if name == "over" else "binomial", to_expression(inner), bottom))
        return inner
