"""The reader of commands: functions, roots, fractions, accents; and numbers."""

import re
from fractions import Fraction

from .cursor import Cursor, Unreadable
from .series import read_series
from .tokens import FUNCTION_NAMES
from .values import INFINITY, Expression, Scalar, Value, choose, number, operands, operations

DIGITS_LIMIT = 1000

FUNCTIONS = set(FUNCTION_NAMES.values())
_SEVERAL = {"max", "min", "gcd", "lcm"}
_ANGLES = {"sin", "cos", "tan", "cot", "sec", "csc"}
_UNUSUAL = {"cot": "tan", "sec": "cos", "csc": "sin"}  # arccot x = arctan(1/x)
_INVERSE = {"sin", "cos", "tan", "sinh", "cosh", "tanh", *_UNUSUAL}
ACCENTS = {
    "overline", "bar", "vec", "hat", "tilde", "widehat", "widetilde", "dot", "ddot", "overrightarrow", "overleftarrow",
    "overset", "arc", "wideparen", "overarc", "angle", "triangle", "odot", "square",
}  # fmt: skip
_INSIDE = r"(?:[^{}]|\{[^{}]*\})"
_DERIVATIVE = re.compile(rf"\{{ (d|partial) {_INSIDE}*\}} \{{ \1 {_INSIDE}+\}}|d \w / d \w(?!\w)")


_N, _K = (rf"(?:(?P<{name}>\d+|[a-z])|\{{ (?P<{name}s>\d+|[a-z]) \}})" for name in "nk")
_SELECTIONS = [  # C_{10}^3; _{10}C_3; 10C3
    re.compile(form + "(?= |$)")
    for form in (rf"(?P<name>[APC]) _ {_N} \^ {_K}", rf"[_^] {_N} (?P<name>[PC]) _ {_K}", rf"{_N} (?P<name>[PC]) {_K}")
]


class FunctionReader(Cursor):
    """Reads commands, with the formulas inside them."""

    def read_selection(self) -> Expression | None:
        """Reads the number of ways to choose or arrange k of n things; returns None for anything else."""
        text = " ".join(token.text for token in self.tokens[self.at : self.at + 12])
        match = next((found for form in _SELECTIONS if (found := form.match(text))), None)
        if match is None:
            return None
        n, k = (match[name] or match[f"{name}s"] for name in "nk")
        if int(n) < int(k) if n.isdigit() and k.isdigit() else match["name"] != "C":  # the square of A_1
            return None
        self.at += len(match.group().split())
        n, k = (number(int(part)) if part.isdigit() else ("symbol", part) for part in (n, k))
        return choose(n, k, match["name"] != "C")

    def _read_command(self) -> Expression:
        """Reads a function, a constant or a structure."""
        name = self.peek().text
        self.at += 1
        if name in FUNCTIONS:
            return self._read_function(name)
        if name in ACCENTS:
            return self._read_accent(name)
        if name == "frac":
            if (derivative := self.read_derivative()) is not None:
                return derivative
            top = self._read_digit()
            return ("divide", top, self._read_digit())
        if name in ("sqrt", "surd", "cbrt"):
            return self._read_root(name)
        if name == "binom":
            top = self._read_digit()
            return ("binomial", top, self._read_digit())
        if name == "pi":
            return ("symbol", "pi")
        if name == "infty":
            return INFINITY
        if name in ("lfloor", "lceil"):
            with self.nest():
                value = (name[1:], self.read_sum())
            if not self.sees_command("rfloor" if name == "lfloor" else "rceil"):
                raise Unreadable(f"\\{name} is not closed")
            self.at += 1
            return value
        if name in ("sum", "prod", "int", "lim"):
            return read_series(self, name)
        raise Unreadable(f"\\{name} is unknown")

    def read_derivative(self) -> Expression | None:
        r"""Reads `{dy}{dx}` behind `\\frac`, or `d y/dx`, as a name; returns None for anything else."""
        text = " ".join(token.text for token in self.tokens[self.at : self.at + 28])
        match = _DERIVATIVE.match(text)
        if match is None:
            return None
        self.at += len(match.group().split())
        return ("application", re.sub("[{} ]", "", match.group().replace("} {", "/")))

    def _read_root(self, name: str) -> Expression:
        degree: Expression = number(3 if name == "cbrt" else 2)
        if name == "sqrt" and self.sees("["):
            with self.nest():
                self.at += 1
                degree = self.read_sum()
                self.expect("]")
        if self.sees("{") and self.sees("}", ahead=1):
            self.at += 2
        with self.nest():
            return ("root", self.read_argument(), degree)

    def _read_accent(self, name: str) -> Expression:
        """Reads an accent or a sign with what it marks, as one variable."""
        if name in ("angle", "triangle", "odot") and not self.sees("{"):
            letters = []
            while self.peek().kind in ("letter", "number") and len(letters) < 4:
                letters.append(self.peek().text + "'" * self.sees("'", ahead=1))
                self.at += 1 + self.sees("'", ahead=1)
            inner = " ".join(letters)
        else:
            inner = self._read_name()
        if not inner:
            raise Unreadable(f"\\{name} marks nothing")
        while self.take("_"):
            inner += f"_{self._read_name()}"
        return ("symbol", f"{name} {inner}")

    def _read_function(self, name: str) -> Expression:
        base = None
        if self.take("_"):
            base = self._read_digit()
        exponent = None
        if self.take("^"):
            with self.nest():
                exponent = self._read_exponent()
        if name in _SEVERAL:
            value = self._read_of_several(name)
        else:
            value = self._apply(name, base, self._read_function_argument(name), exponent)
            if exponent == number(-1) and name in _INVERSE:  # sin^{-1} is the inverse function
                return value
        return value if exponent is None else ("power", value, exponent)

    def _apply(self, name: str, base: Expression | None, argument: Expression, exponent: Expression | None) -> tuple:
        if base is not None and name != "log":
            raise Unreadable(f"{name} has a subscript")
        if exponent == number(-1) and name in _INVERSE:
            name = f"a{name}"
        if name == "cis":
            return ("exp", ("multiply", ("symbol", "i"), to_radians(argument)))
        if name in ("log", "ln"):
            return ("ln", argument) if name == "ln" else ("log", base or number(10), argument)
        if name[0] == "a" and name[1:] in _UNUSUAL:
            return (f"a{_UNUSUAL[name[1:]]}", ("divide", number(1), argument))
        return (name, to_radians(argument) if name in _ANGLES else argument)

    def _read_of_several(self, name: str) -> Expression:
        """Reads the arguments of a function of several: `(1, 2)` or `\\{1, 2\\}`; `\\min(x+y)` is a name."""
        group = self.read_group()
        items = getattr(group, "items", None)
        if items is None:
            return ("application", name, to_expression(group))
        return (name, *map(to_expression, items))

    def _read_function_argument(self, name: str) -> Expression:
        r"""Reads brackets, or the factors up to the next function: `2 \sin b \cos a`, `\sin 2x`."""
        with self.nest():
            if self.sees("(", "{", "["):
                return self.read_scalar_group()
            if self.sees("-"):
                self.at += 1
                return negate(self._read_function_argument(name))
            value = self._read_power()
            while self.starts_factor() and not self.sees("(", "[", "|"):
                if self.peek().kind == "command" and self.peek().text in FUNCTIONS:
                    break
                value = ("multiply", value, self._read_power())
            if name in _ANGLES and self.sees("/") and self.peek(1).kind == "number":  # sin pi/6
                self.at += 1
                value = ("divide", value, self._read_power())
        return value


def negate(value: Expression) -> Expression:
    """Returns minus a value."""
    return number(-value[1]) if value[0] == "number" else ("negative", value)


def to_expression(value: Value) -> Expression:
    """Returns the expression of a scalar. Raises Unreadable for anything else: no tuple can be multiplied."""
    if isinstance(value, Scalar) and value.product is not None:  # `4 A` is a product in a formula
        return value.product
    if not isinstance(value, Scalar) or value.unit:
        raise Unreadable("a list or a unit stands inside a formula")
    return ("divide", value.expression, number(100)) if value.percent else value.expression


def to_radians(value: Expression) -> Expression:
    """Returns the argument of a trigonometric function with each angle in degrees as one in radians."""
    if "degree" not in operations(value):
        return value
    if value[0] == "degree":
        return ("divide", ("multiply", value[1], ("symbol", "pi")), number(180))
    return (value[0], *(to_radians(part) if part in operands(value) else part for part in value[1:]))


def to_number(text: str) -> Expression:
    """Returns the value of a decimal number: `12.5`, `0.1(6)` with repeating digits, or `1.5e3`."""
    if len(text) > DIGITS_LIMIT:
        raise Unreadable(f"a number has more than {DIGITS_LIMIT} digits")
    if "(" not in text:
        return number(Fraction(text))
    whole, once, again = re.fullmatch(r"(\d*)\.(\d*)\((\d+)\)", text).groups()
    start = Fraction(int((whole + once) or 0), 10 ** len(once))
    return number(start + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once)))


def find_period(text: str) -> str:
    """Returns `0.1(6)` for the digits `0.1666` that go on. Raises Unreadable if they do not repeat."""
    whole, _, part = text.partition(".")
    for start in range(len(part) - 1):
        digits = part[start:]
        for length in range(1, len(digits) // 2 + 1):
            if digits == (digits[:length] * len(digits))[: len(digits)]:
                return f"{whole}.{part[:start]}({digits[:length]})"
    raise Unreadable(f"the digits {text} do not repeat")
