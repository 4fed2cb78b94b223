"""The reader of formulas: sums, products, powers, roots and functions, as exact scalars."""

import re
from fractions import Fraction

from . import functions, polynomial
from .polynomial import Polynomial, TooBig
from .scanner import Scanner, Unreadable
from .values import INFINITY, Scalar, Value

DIGITS_LIMIT = 1000

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc asin acos atan arcsinh "
    "arccosh arctanh floor ceil"
)
_NUMERIC_FUNCTIONS = {name: name.replace("arc", "a", 1) for name in _FUNCTION_NAMES.split()}
_FUNCTIONS = {*_NUMERIC_FUNCTIONS, "exp", "log", "ln", "abs"}
_KNOWN_WORDS = sorted([*_FUNCTIONS, "sqrt", "frac", "pi", "binom", "infty"], key=len, reverse=True)
WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_REPEATING = re.compile(r"(\d*)\.(\d*)\s*\\overline\s*\{(\d+)\}")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_COMMAND_OR_WORD = re.compile(r"\\?([A-Za-z]+)")
_NAME = re.compile("⟦([^⟧]*)⟧")
_SUBSCRIPT = re.compile(r"\{([^{}]*)\}|(\\?[0-9A-Za-z]+)")
_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|rho|sigma|"
    "tau|upsilon|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|ell|hbar|nabla|"
    "angle|triangle"
)


def find_known_word(word: str) -> str:
    """Returns the longest function or constant that `word` begins with; the empty text if there is none."""
    return next((known for known in _KNOWN_WORDS if word.startswith(known)), "")


def to_polynomial(value: Value) -> Polynomial:
    """Returns the exact value of a scalar.

    Raises:
      Unreadable: for anything else, because no tuple can be multiplied.
    """
    if not isinstance(value, Scalar):
        raise Unreadable("a list stands inside a formula")
    return value.value * polynomial.number(Fraction(1, 100)) if value.percent else value.value


class FormulaReader(Scanner):
    """Reads a formula by recursive descent; nothing of the text is executed.

    `plus_minus` is the sign that ± stands for, 1 or -1.
    """

    def __init__(self, text: str, start: int = 0, depth: int = 0, plus_minus: int = 1):
        super().__init__(text, start, depth)
        self.plus_minus = plus_minus

    def read_group(self) -> Value:
        """Reads what is between brackets, from the opening one on."""
        raise NotImplementedError

    def read_sum(self, first: Polynomial | None = None) -> Scalar:
        """Reads terms with + or - between them; `first` is the first factor, where it has been read already."""
        start = self.skip_spaces() if first is None else self.at - 1
        total = self._read_signed_product(first)
        while (sign := self.peek()) in ("+", "-", "±"):
            self.at += 1
            right = self._read_signed_product()
            total = Scalar(total.value + (right.value if self._is_plus(sign) else -right.value))
        if self.take("%"):
            total = total._replace(percent=True)
        literal = self.text[start : self.at].replace(" ", "").rstrip("%").lstrip("+-±")
        if _NUMBER.fullmatch(literal):
            total = total._replace(decimals=len(literal.partition(".")[2]))
        return total

    def _is_plus(self, sign: str) -> bool:
        return sign == "+" or (sign == "±" and self.plus_minus > 0)

    def _read_signed_product(self, first: Polynomial | None = None) -> Scalar:
        sign = 1
        while first is None and (character := self.peek()) in ("+", "-", "±"):
            self.at += 1
            sign = sign if self._is_plus(character) else -sign
        product = self._read_product(first)
        return product if sign > 0 else product._replace(value=-product.value)

    def _read_product(self, first: Polynomial | None) -> Scalar:
        r"""Reads factors, with or without a sign between them; `2\frac{1}{3}` is a mixed number."""
        whole = _NUMBER.match(self.text, self.skip_spaces()) if first is None else None
        value = self._read_power(first)
        if whole is not None and "." not in whole.group() and not self.text[whole.end() : self.at].strip():
            fraction = self._read_proper_fraction()
            if fraction is not None:
                value = value + polynomial.number(fraction)
        ratios = 0
        while not self.is_done():
            if self.take("*"):
                value = value * self._read_signed_factor()
            elif self.peek() in ("/", ":"):
                ratios += self.text[self.at] == ":"
                if ratios > 1:
                    raise Unreadable("a ratio of three stands inside a formula")
                self.at += 1
                value = value * functions.inverse(self._read_signed_factor())
            elif self._starts_factor():
                value = value * self._read_power()
            else:
                break
        return Scalar(value)

    def _read_signed_factor(self) -> Polynomial:
        return -self._read_signed_factor() if self.take("-") else self._read_power()

    def _read_proper_fraction(self) -> Fraction | None:
        """Reads a fraction of two whole numbers, which makes the number before it a mixed one; None if none is here."""
        start = self.at
        if not self.take("\\frac"):
            return None
        top, bottom = self._read_argument().rational, self._read_argument().rational
        if top is not None and bottom and top.denominator == bottom.denominator == 1 and 0 < top < bottom:
            return Fraction(top, bottom)
        self.at = start
        return None

    def _starts_factor(self) -> bool:
        """Returns whether a factor without a sign before it comes next."""
        character = self.peek()
        if self.text.startswith(("\\rfloor", "\\rceil"), self.at):
            return False
        if character.isdigit():  # `(n-2) 2^n` is a product; two numbers side by side are not
            return self.text[: self.at].rstrip().endswith(")")
        return bool(character) and (character.isascii() and character.isalpha() or character in "({[\\⟦")

    def _read_power(self, base: Polynomial | None = None) -> Polynomial:
        """Reads a base, unless it is given, and the exponents and factorial signs behind it."""
        value = self._read_atom() if base is None else base
        while True:
            if self.take("^"):
                value = self._read_exponent(value)
            elif self.peek() == "!" and self.text[self.at : self.at + 2] != "!=":
                self.at += 1
                value = functions.factorial(value)
            else:
                return value

    def _read_exponent(self, base: Polynomial) -> Polynomial:
        """Reads an exponent, and returns the power."""
        with self.nest():
            negative = self.take("-")
            exponent = self._read_argument(several_digits=True)
            if not negative and self.text[self.at - 1] not in "})]" and self.take("^"):  # 2^3^4 is 2^(3^4)
                exponent = self._read_exponent(exponent)
        return functions.power(base, -exponent if negative else exponent)

    def _read_atom(self) -> Polynomial:
        """Reads a number, a variable, a function, or what is between brackets."""
        character = self.peek()
        if (match := self.take_match(_REPEATING)) is not None:
            return _to_repeating_decimal(*match.groups())
        if (match := self.take_match(_NUMBER)) is not None:
            return _to_number(match.group())
        if character in ("(", "[", "{"):
            return to_polynomial(self.read_group())
        if character == "|":
            return self._read_absolute()
        if (match := self.take_match(_NAME)) is not None:
            return self._read_variable(match.group(1))
        if character == "\\":
            if (match := self.take_match(_COMMAND)) is None:
                raise Unreadable("a backslash stands before no command")
            return self._read_named(match.group(1))
        if (match := WORD.match(self.text, self.at)) is not None:
            known = find_known_word(match.group())
            self.at += len(known) or 1
            return self._read_named(known) if known else self._read_variable(character)
        raise Unreadable(f"{self.text[self.at : self.at + 20]!r} begins no number, variable or bracket")

    def _read_named(self, name: str) -> Polynomial:
        """Reads what belongs to a command or a known word, whose name has been read."""
        if name == "frac":
            top = self._read_argument()
            return top * functions.inverse(self._read_argument())
        if name == "sqrt":
            return self._read_root()
        if name == "binom":
            top = self._read_argument()
            return functions.binomial(top, self._read_argument())
        if name == "pi":
            return polynomial.PI
        if name == "infty":
            return INFINITY
        if name in ("lfloor", "lceil"):
            value = self.read_sum().value
            if not self.take("\\rfloor" if name == "lfloor" else "\\rceil"):
                raise Unreadable(f"\\{name} is not closed")
            return functions.function(name[1:], value)
        if name in _FUNCTIONS:
            return self._read_function(name)
        if _GREEK.fullmatch(name):
            return self._read_variable(name)
        raise Unreadable(f"\\{name} is unknown")

    def _read_function(self, name: str) -> Polynomial:
        base = self._read_argument() if name == "log" and self.take("_") else polynomial.number(10)
        exponent = self._read_argument(several_digits=True) if self.take("^") else None
        argument = self._read_function_argument()
        if name == "exp":
            value = functions.power(polynomial.EULER, argument)
        elif name in ("log", "ln"):
            value = polynomial.atom(("log", base if name == "log" else polynomial.EULER, argument))
        elif name == "abs":
            value = functions.absolute(argument)
        elif exponent == polynomial.number(-1):  # sin^{-1} is the inverse function
            return functions.function("a" + _NUMERIC_FUNCTIONS[name], argument)
        else:
            value = functions.function(_NUMERIC_FUNCTIONS[name], argument)
        return value if exponent is None else functions.power(value, exponent)

    def _read_function_argument(self) -> Polynomial:
        r"""Reads brackets, or the factors up to the next function: `2 \sin b \cos a`, `\sin 2x`."""
        if self.peek() in ("(", "{", "["):
            return to_polynomial(self.read_group())
        with self.nest():
            value = self._read_power()
            while self._starts_factor() and self.peek() not in ("(", "["):
                word = _COMMAND_OR_WORD.match(self.text, self.at)
                if word is not None and find_known_word(word.group(1)) in _FUNCTIONS:
                    break
                value = value * self._read_power()
        return value

    def _read_root(self) -> Polynomial:
        degree = 2
        if self.peek() == "[":
            end = self.text.find("]", self.at)
            degree = self.text[self.at + 1 : max(end, 0)].strip()
            if not re.fullmatch(r"[1-9]\d{0,2}", degree):
                raise Unreadable(f"{degree!r} is no degree of a root: use a whole number from 1 to 999")
            self.at = end + 1
        if self.take("{}") and self.peek() != "{":
            raise Unreadable("a root is empty")
        return functions.root(self._read_argument(), int(degree))

    def _read_absolute(self) -> Polynomial:
        with self.nest():
            self.at += 1
            value = to_polynomial(self.read_sum())
            if not self.take("|"):
                raise Unreadable("a | is not closed")
        return functions.absolute(value)

    def _read_argument(self, several_digits: bool = False) -> Polynomial:
        r"""Reads a bracket, a command or one character: `\frac12` has the arguments 1 and 2."""
        character = self.peek()
        if character in ("{", "("):
            return to_polynomial(self.read_group())
        if character.isdigit() and not several_digits:
            self.at += 1
            return polynomial.number(int(character))
        return self._read_atom()

    def _read_variable(self, name: str) -> Polynomial:
        """Reads a variable's subscript and primes; `e` is Euler's number and `i` the imaginary unit."""
        if self.take("_"):
            match = self.take_match(_SUBSCRIPT)
            subscript = match and (match.group(1) or match.group(2))
            if not subscript:
                raise Unreadable("a subscript is empty")
            return polynomial.atom(f"{name}_{subscript.replace(' ', '')}")
        while self.take("'"):
            name += "'"
        if name in ("i", "e"):
            return polynomial.IMAGINARY if name == "i" else polynomial.EULER
        if len(name) == 1 and self.peek() == "(" and name in "fghFGHPQ":
            argument = to_polynomial(self.read_group())
            return polynomial.atom(f"{name}({argument!r})")
        return polynomial.atom(name)


def _to_number(digits: str) -> Polynomial:
    """Returns the value of a decimal number. Raises TooBig for more than `DIGITS_LIMIT` digits."""
    if len(digits) > DIGITS_LIMIT:
        raise TooBig(f"a number has more than {DIGITS_LIMIT} digits")
    return polynomial.number(Fraction(digits))


def _to_repeating_decimal(whole: str, once: str, again: str) -> Polynomial:
    r"""Returns the value of a decimal number whose digits `again` repeat: `16.\overline{6}` is 50/3."""
    if len(whole + once + again) > DIGITS_LIMIT:
        raise TooBig(f"a number has more than {DIGITS_LIMIT} digits")
    start = Fraction(int((whole + once) or 0), 10 ** len(once))
    return polynomial.number(start + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once)))
