"""Read a normalised answer: scalars, lists, tuples, intervals, sets, relations, matrices and words.

A parser by recursive descent over one string; nothing is executed, and the depth and length are bounded.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from . import polynomial
from .normalize import normalize
from .polynomial import Polynomial, TooBig

LENGTH_LIMIT = 2000  # characters of an answer
DEPTH_LIMIT = 40
DIGITS_LIMIT = 1000


class Unreadable(ValueError):
    """The text does not follow this grammar."""


class Scalar(NamedTuple):
    """A number or formula; `decimals` of a plain decimal number (`0.50` has 2), `percent` if a percent sign follows."""

    value: Polynomial
    decimals: int | None = None
    percent: bool = False


class Group(NamedTuple):
    """A bracketed list: tuple, interval (square or unequal brackets), set (`{`) or ratio (`:`); without any a list."""

    opening: str
    items: tuple["Value", ...]
    closing: str


class Pieces(NamedTuple):
    """A union of sets."""

    parts: tuple["Value", ...]


class Relation(NamedTuple):
    """Sides and the signs between them: `0 < x ≤ 1` has three sides."""

    sides: tuple["Value", ...]
    signs: tuple[str, ...]


class Matrix(NamedTuple):
    """Rows of scalars."""

    rows: tuple[tuple[Scalar, ...], ...]


class Words(NamedTuple):
    """An answer in words, or a letter of a choice."""

    text: str


Value = Scalar | Group | Pieces | Relation | Matrix | Words

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc asin acos atan arcsinh "
    "arccosh arctanh floor ceil"
)
_FUNCTIONS = {name: name.replace("arc", "a", 1) for name in re.findall(r"\w+", _FUNCTION_NAMES)}
_WORD = re.compile(r"[A-Za-z]+")
_KNOWN_WORDS = sorted([*_FUNCTIONS, "sqrt", "frac", "pi", "exp", "log", "ln", "abs", "binom", "infty"], key=len)[::-1]
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*\\overline\s*\{(\d+)\}")
_PROSE = re.compile(r"[^\\{}=<>≤≥≠≈∈^_∪|]*")
_RATIO = re.compile(r"[^:,;=<>]+(?::[^:,;=<>]+){2,}")  # of three or more: of two it is a quotient
_SPACE = re.compile(r"\s*")
_RELATION = re.compile(r"[=<>≤≥≠≈∈]")
_MATRIX = re.compile(
    r"\\(?:begin)\s*\{\s*([bpB]?)(?:small)?matrix\s*\}(.*?)\\end\s*\{\s*[bpB]?(?:small)?matrix\s*\}", re.S
)
_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|"
    "tau|upsilon|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|ell|hbar|nabla|"
    "angle|triangle"
)
_CLOSINGS = {"⦃": "⦄", "{": "}", "]": "[]", "(": ")]", "[": ")]"}  # ]0, 1[ is an open interval
INFINITY = "infinity"


@lru_cache(maxsize=4096)
def parse(text: str) -> Value:
    """The value of an answer (not yet normalised). Raises Unreadable, TooBig or ZeroDivisionError."""
    if len(text) > LENGTH_LIMIT:
        raise TooBig(f"an answer of more than {LENGTH_LIMIT} characters")
    return parse_normal(normalize(text))


def parse_normal(text: str) -> Value:
    """As `parse`, of text that is normalised already."""
    try:
        if not text:
            raise Unreadable("empty")
        if _is_prose(text):
            return Words(text)
        if _RATIO.fullmatch(text):
            return Group(":", tuple(_Reader(part).whole() for part in text.split(":")), ":")
        return _Reader(text).whole()
    except RecursionError as error:
        raise TooBig("nested too deeply") from error


def _is_prose(text: str) -> bool:
    """Whether it is words: letters that are no product of variables and no functions."""
    if not _PROSE.fullmatch(text):
        return False
    words = _WORD.findall(text)
    return any(len(word) > 2 and not _split_known(word)[0] for word in words) or bool(
        re.search(r"[^\x00-\x7f⟦⟧⦃⦄±°]", text)
    )


def _split_known(word: str) -> tuple[str, str]:
    """(known function or constant at its start, rest)."""
    known = next((known for known in _KNOWN_WORDS if word.startswith(known)), "")
    return known, word[len(known) :]


class _Reader:
    """One pass over a text; `_sign` is what ± means in this pass."""

    def __init__(self, text: str, sign: int = 1):
        self._text = text
        self._at = 0
        self._depth = 0
        self._sign = sign
        self._first: Polynomial | None = None  # the first factor of the next sum, when it has been read already

    # ---- lists and relations

    def whole(self) -> Value:
        """The whole text."""
        value = self._list("")
        if not self._done():
            raise Unreadable(f"at {self._text[self._at : self._at + 20]!r}")
        return value

    def _list(self, closing: str) -> Value:
        """Elements between commas and semicolons; one alone is itself."""
        items, semicolons, current = [], [], []
        while True:
            if self._peek() not in (",", ";") and not self._ends(closing):
                current.extend(self._element())
            if self._take(";"):
                semicolons.append(current)
                current = []
            elif not self._take(","):
                break
        semicolons.append(current)
        if len(semicolons) > 1 and all(len(part) > 1 for part in semicolons) and not closing:
            items = [Group("", tuple(part), "") for part in semicolons]
        else:
            items = [item for part in semicolons for item in part]
        if not items:
            raise Unreadable("nothing between separators")
        return items[0] if len(items) == 1 else Group("", tuple(items), "")

    def _ends(self, closing: str) -> bool:
        return self._done() or (bool(closing) and self._peek() in closing)

    def _element(self) -> list[Value]:
        """One element; two, if it contains ±."""
        start = self._at
        value = self._relation()
        if "±" not in self._text[start : self._at] or self._sign < 0:
            return [value]
        other = _Reader(self._text[: self._at], -1)
        other._at, other._depth = start, self._depth
        negative = other._relation()
        return [value] if negative == value else [value, negative]

    def _relation(self) -> Value:
        sides, signs = [self._union()], []
        while (match := _RELATION.match(self._text, self._skip())) is not None:
            self._at = match.end()
            signs.append(match.group())
            sides.append(self._union())
        return Relation(tuple(sides), tuple(signs)) if signs else sides[0]

    def _union(self) -> Value:
        parts = [self._side()]
        while self._take("∪"):
            parts.append(self._side())
        return Pieces(tuple(parts)) if len(parts) > 1 else parts[0]

    def _side(self) -> Value:
        """A set, tuple, interval or matrix alone, else a sum."""
        start = self._skip()
        if (matrix := _MATRIX.match(self._text, start)) is not None:
            self._at = matrix.end()
            return _read_matrix(matrix.group(2))
        if self._peek() in ("(", "[", "⦃", "{", "]"):
            group = self._group()
            if not isinstance(group, Scalar) or self._stops():
                return group
            self._first = self._scalar(group)  # read once: reading it again would double the work at every depth
        return self._sum()

    def _stops(self) -> bool:
        """Whether nothing follows that could belong to the same formula."""
        return self._done() or self._peek() in ",;)]}⦄=<>≤≥≠≈∈∪&"

    def _group(self) -> Value:
        opening = self._text[self._at]
        self._descend()
        self._at += 1
        if opening == "⦃" and self._take("⦄"):
            self._depth -= 1
            return Group("{", (), "}")
        closings = _CLOSINGS[opening]
        inner = self._list(closings)
        closing = self._peek()
        if not closing or closing not in closings:
            raise Unreadable(f"a bracket {opening} that does not close")
        self._at += 1
        self._depth -= 1
        several = isinstance(inner, Group) and not inner.opening
        if opening == "⦃" or (opening == "{" and several):
            return Group("{", inner.items if several else (inner,), "}")
        if several:
            return Group(opening.replace("]", "("), inner.items, closing.replace("[", ")"))
        if (opening, closing) not in (("(", ")"), ("[", "]"), ("{", "}")):
            raise Unreadable("a half-open bracket around one thing")
        return inner

    # ---- formulas

    def _sum(self) -> Scalar:
        start = self._skip() if self._first is None else self._at - 1
        total = self._signed_product()
        while (sign := self._peek()) in ("+", "-", "±"):
            self._at += 1
            right = self._signed_product()
            total = Scalar(total.value + (right.value if self._positive(sign) else -right.value))
        if self._take("%"):
            total = total._replace(percent=True)
        literal = self._text[start : self._at].replace(" ", "").rstrip("%").lstrip("+-±")
        if _NUMBER.fullmatch(literal):
            total = total._replace(decimals=len(literal.partition(".")[2]))
        return total

    def _positive(self, sign: str) -> bool:
        return sign == "+" or (sign == "±" and self._sign > 0)

    def _signed_product(self) -> Scalar:
        sign = 1
        while self._first is None and (character := self._peek()) in ("+", "-", "±"):
            self._at += 1
            sign = sign if self._positive(character) else -sign
        product = self._product()
        return product if sign > 0 else product._replace(value=-product.value)

    def _product(self) -> Scalar:
        """Factors, with or without a sign between them; `2\\frac{1}{3}` is a mixed number."""
        whole = _NUMBER.match(self._text, self._skip()) if self._first is None else None
        value = self._power()
        if whole is not None and "." not in whole.group() and not self._text[whole.end() : self._at].strip():
            fraction = self._plain_fraction()
            if fraction is not None:
                value = value + polynomial.number(fraction)
        ratios = 0
        while not self._done():
            if self._take("*"):
                value = value * self._signed_factor()
            elif self._peek() in ("/", ":"):
                ratios += self._text[self._at] == ":"
                if ratios > 1:
                    raise Unreadable("a ratio of three")
                self._at += 1
                value = value * polynomial.inverse(self._signed_factor())
            elif self._starts_factor():
                value = value * self._power()
            else:
                break
        return Scalar(value)

    def _signed_factor(self) -> Polynomial:
        if self._take("-"):
            return -self._signed_factor()
        return self._power()

    def _plain_fraction(self) -> Fraction | None:
        """A fraction of two whole numbers here, which makes the number before it a mixed one."""
        start = self._at
        if not self._take("\\frac"):
            return None
        top, bottom = self._argument().rational, self._argument().rational
        if top is not None and bottom and top.denominator == bottom.denominator == 1 and 0 < top < bottom:
            return Fraction(top, bottom)
        self._at = start
        return None

    def _starts_factor(self) -> bool:
        character = self._peek()
        if self._text.startswith(("\\rfloor", "\\rceil"), self._at):
            return False
        if character.isdigit():  # `(n-2) 2^n`, but no product of two numbers
            return self._text[: self._at].rstrip().endswith(")")
        return bool(character) and (character.isascii() and character.isalpha() or character in "({[\\⟦")

    def _power(self) -> Polynomial:
        value = self._atom()
        while True:
            if self._take("^"):
                value = self._raised(value)
            elif self._peek() == "!" and self._text[self._at : self._at + 2] != "!=":
                self._at += 1
                value = polynomial.factorial(value)
            else:
                return value

    def _raised(self, value: Polynomial) -> Polynomial:
        self._descend()
        negative = self._take("-")
        exponent = self._argument(whole_number=True)
        if not negative and self._text[self._at - 1] not in "})]" and self._peek() == "^":  # 2^3^4 is 2^(3^4)
            self._at += 1
            exponent = self._raised(exponent)
        self._depth -= 1
        return polynomial.power(value, -exponent if negative else exponent)

    def _atom(self) -> Polynomial:
        if self._first is not None:
            value, self._first = self._first, None
            return value
        character = self._peek()
        if (match := _REPEATING.match(self._text, self._at)) is not None:
            self._at = match.end()
            return _read_repeating(*match.groups())
        if (match := _NUMBER.match(self._text, self._at)) is not None:
            self._at = match.end()
            return _read_number(match.group())
        if character in ("(", "[", "{"):
            return self._scalar(self._group())
        if character == "|":
            return self._absolute()
        if character == "⟦":
            end = self._text.index("⟧", self._at) if "⟧" in self._text[self._at :] else -1
            name, self._at = self._text[self._at + 1 : end], end + 1
            return self._variable(name)
        if character == "\\":
            return self._command()
        if (match := _WORD.match(self._text, self._at)) is not None:
            known, _ = _split_known(match.group())
            self._at += len(known) or 1
            return self._named(known) if known else self._variable(character)
        raise Unreadable(f"{self._text[self._at : self._at + 20]!r}")

    def _command(self) -> Polynomial:
        match = re.compile(r"\\([A-Za-z]+)").match(self._text, self._at)
        if match is None:
            raise Unreadable("a lone backslash")
        self._at = match.end()
        return self._named(match.group(1))

    def _named(self, name: str) -> Polynomial:
        """What a command or a known word stands for."""
        if name == "frac":
            top = self._argument()
            return top * polynomial.inverse(self._argument())
        if name == "sqrt":
            return self._root()
        if name == "binom":
            top = self._argument()
            return polynomial.binomial(top, self._argument())
        if name == "pi":
            return polynomial.PI
        if name == "infty":
            return polynomial.atom(INFINITY)
        if name in ("lfloor", "lceil"):
            value = self._sum().value
            if not self._take("\\rfloor" if name == "lfloor" else "\\rceil"):
                raise Unreadable("a floor or ceiling that does not close")
            return polynomial.function(name[1:], value)
        if name in _FUNCTIONS or name in ("exp", "log", "ln", "abs"):
            return self._function(name)
        if _GREEK.fullmatch(name):
            return self._variable(name)
        raise Unreadable(f"unknown \\{name}")

    def _function(self, name: str) -> Polynomial:
        base = self._argument() if name == "log" and self._take("_") else polynomial.number(10)
        exponent = self._argument(whole_number=True) if self._take("^") else None
        argument = self._function_argument()
        if name == "exp":
            value = polynomial.power(polynomial.EULER, argument)
        elif name in ("log", "ln"):
            value = polynomial.atom(("log", base if name == "log" else polynomial.EULER, argument))
        elif name == "abs":
            value = polynomial.absolute(argument)
        elif exponent == polynomial.number(-1):  # sin^{-1} is the inverse function
            return polynomial.function("a" + _FUNCTIONS[name], argument)
        else:
            value = polynomial.function(_FUNCTIONS[name], argument)
        return value if exponent is None else polynomial.power(value, exponent)

    def _function_argument(self) -> Polynomial:
        r"""Brackets, or the factors up to the next function: `2 \sin b \cos a`, `\sin 2x`."""
        if self._peek() in ("(", "{", "["):
            return self._scalar(self._group())
        self._descend()
        value = self._power()
        while self._starts_factor() and self._peek() not in ("(", "["):
            word = re.compile(r"\\?([A-Za-z]+)").match(self._text, self._at)
            name = _split_known(word.group(1))[0] if word else ""
            if name in _FUNCTIONS or name in ("exp", "log", "ln", "abs"):
                break
            value = value * self._power()
        self._depth -= 1
        return value

    def _root(self) -> Polynomial:
        degree = 2
        if self._peek() == "[":
            end = self._text.find("]", self._at)
            degree = self._text[self._at + 1 : max(end, 0)].strip()
            if not re.fullmatch(r"[1-9]\d{0,2}", degree):
                raise Unreadable("a root whose degree is no number")
            self._at = end + 1
        if self._take("{}") and self._peek() != "{":
            raise Unreadable("an empty root")
        return polynomial.root(self._argument(), int(degree))

    def _absolute(self) -> Polynomial:
        self._descend()
        self._at += 1
        value = self._scalar(self._sum())
        if not self._take("|"):
            raise Unreadable("a | that does not close")
        self._depth -= 1
        return polynomial.absolute(value)

    def _argument(self, whole_number: bool = False) -> Polynomial:
        r"""A brace group, bracket, command or one character: `\frac12` has the arguments 1 and 2."""
        character = self._peek()
        if character in ("{", "("):
            return self._scalar(self._group())
        if character.isdigit() and not whole_number:
            self._at += 1
            return polynomial.number(int(character))
        return self._atom()

    def _variable(self, name: str) -> Polynomial:
        """A variable with its subscript and primes; `e` is Euler's number and `i` the imaginary unit."""
        if self._take("_"):
            match = re.compile(r"\{([^{}]*)\}|(\\?[0-9A-Za-z]+)").match(self._text, self._skip())
            if match is None:
                raise Unreadable("an empty subscript")
            self._at = match.end()
            return polynomial.atom(f"{name}_{(match.group(1) or match.group(2)).replace(' ', '')}")
        while self._take("'"):
            name += "'"
        if name in ("i", "e"):
            return polynomial.IMAGINARY if name == "i" else polynomial.EULER
        if len(name) == 1 and self._peek() == "(" and name in "fghFGHPQ":
            argument = self._scalar(self._group())
            return polynomial.atom(f"{name}({argument!r})")
        return polynomial.atom(name)

    # ---- characters

    @staticmethod
    def _scalar(value: Value) -> Polynomial:
        """The formula of a value. Raises Unreadable for anything else: no tuple can be multiplied."""
        if not isinstance(value, Scalar):
            raise Unreadable("a list inside a formula")
        return value.value if not value.percent else value.value * polynomial.number(Fraction(1, 100))

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise TooBig(f"brackets nested more than {DEPTH_LIMIT} deep")

    def _skip(self) -> int:
        self._at = _SPACE.match(self._text, self._at).end()
        return self._at

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        return self._text[self._skip() : self._at + 1]

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._skip()):
            return False
        self._at += len(token)
        return True

    def _done(self) -> bool:
        return self._skip() >= len(self._text)


def _read_number(text: str) -> Polynomial:
    if len(text) > DIGITS_LIMIT:
        raise TooBig(f"a number of more than {DIGITS_LIMIT} digits")
    return polynomial.number(Fraction(text))


def _read_repeating(whole: str, once: str, again: str) -> Polynomial:
    r"""`16.\overline{6}` is 50/3."""
    if len(whole + once + again) > DIGITS_LIMIT:
        raise TooBig(f"a number of more than {DIGITS_LIMIT} digits")
    start = Fraction(int((whole + once) or 0), 10 ** len(once))
    return polynomial.number(start + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once)))


def _read_matrix(body: str) -> Matrix:
    """Rows between `¶`, entries between `&`."""
    rows = [row for row in body.split("¶") if row.strip()]
    entries = tuple(tuple(_read_entry(entry) for entry in row.split("&")) for row in rows)
    if not entries or len({len(row) for row in entries}) != 1:
        raise Unreadable("a matrix with rows of different lengths")
    return Matrix(entries)


def _read_entry(text: str) -> Scalar:
    value = _Reader(text).whole()
    if not isinstance(value, Scalar):
        raise Unreadable("an entry of a matrix that is no number or formula")
    return value
