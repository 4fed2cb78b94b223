"""The reader of formulas: sums, products, powers, numbers and variables, by recursive descent over tokens."""

import re

from .cursor import Unreadable
from .functions import ACCENTS, FUNCTIONS, FunctionReader, find_period, negate, to_expression, to_number
from .tokens import Token
from .values import Expression, Value, number
from .words import number_in_words

_PLAIN_FRACTION = re.compile(r"frac (?:\d+|(?:\{ \d+ \}|\d) (?:\{ \d+ \}|\d+))(?: |$)")
_FUNCTION_LETTERS = set("fghFGHPQTE")
_STRUCTURES = {
    "frac", "sqrt", "surd", "cbrt", "binom", "pi", "infty", "lfloor", "lceil", "sum", "prod", "int", "lim", *ACCENTS,
}  # fmt: skip


class FormulaReader(FunctionReader):
    """Reads formulas."""

    def read_group(self) -> Value:
        """Reads what is between brackets, from the opening one on."""
        raise NotImplementedError

    # Sums and products

    def read_sum(self, first: Expression | None = None) -> Expression:
        """Reads terms with + or - between them; `first` is the first factor, where it has been read already."""
        terms = [self._read_term(first)]
        while self.sees("+", "-", "±", "∓"):
            terms.append(self._read_term())
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def _read_term(self, first: Expression | None = None) -> Expression:
        """Reads a product with any signs before it."""
        sign = 1
        while first is None and self.sees("+", "-", "±", "∓"):
            character = self.peek().text
            self.at += 1
            self.signs += character in "±∓"
            sign *= {"+": 1, "-": -1, "±": self.plus_minus, "∓": -self.plus_minus}[character]
        product = self._read_product(first)
        return product if sign > 0 else negate(product)

    def _read_product(self, first: Expression | None) -> Expression:
        r"""Reads factors, with or without a sign between them; `2\frac{1}{3}` is a mixed number."""
        start = self.at
        value = self._read_power() if first is None else first
        if first is None and self.at == start + 1 and self.tokens[start].text.isdigit():
            value = self._read_mixed(value)
        while True:
            if self.take("*"):
                value = ("multiply", value, self._read_signed())
            elif self.sees("/") and self.peek(1).kind != "word":
                self.at += 1
                value = ("divide", value, self._read_signed())
            elif self.sees_command("bmod", "mod"):
                self.at += 1
                value = ("mod", value, self._read_signed())
            elif self.starts_factor():
                value = ("multiply", value, self._read_power())
            else:
                return value

    def _read_signed(self) -> Expression:
        negative = self._read_signs()
        value = self._read_power()
        return negate(value) if negative else value

    def _read_signs(self) -> bool:
        """Reads any + and -, and returns whether they make a minus."""
        negative = False
        while self.sees("+", "-"):
            negative ^= self.peek().text == "-"
            self.at += 1
        return negative

    def _read_mixed(self, whole: Expression) -> Expression:
        r"""Returns `whole` plus the fraction behind it, if that is one of two whole numbers and below 1."""
        start, tokens = self.at, list(self.tokens)
        fraction = None
        if _PLAIN_FRACTION.match(" ".join(token.text for token in self.tokens[self.at : self.at + 8])):
            fraction = self._read_command()
        elif self.peek().kind == "number" and self.peek().gap and self.sees("/", ahead=1):
            top, bottom = self.peek(), self.peek(2)
            if top.text.isdigit() and bottom.text.isdigit():
                self.at += 3
                fraction = ("divide", number(int(top.text)), number(int(bottom.text)))
        if fraction is not None and fraction[0] == "divide":
            _, top, bottom = fraction
            is_plain = top[0] == bottom[0] == "number" and top[1].denominator == bottom[1].denominator == 1
            if is_plain and 0 < top[1] < bottom[1]:
                return ("add", whole, fraction)
            if is_plain and top[1] >= bottom[1] > 0:
                raise Unreadable("a number before an improper fraction may be added or multiplied")
        self.at, self.tokens = start, tokens
        return whole

    def starts_factor(self) -> bool:
        """Returns whether a factor without a sign before it comes next."""
        token, before = self.peek(), self.tokens[self.at - 1]
        if token.kind == "letter":
            return True
        if token.kind == "command":
            is_unit = token.text == "frac" and self.sees("{", ahead=1) and self.peek(2).kind == "word"
            return token.text in FUNCTIONS | _STRUCTURES and not is_unit
        if token.kind == "number":  # `(n-2) 2^n` and `n 2^n` are products; two numbers side by side are not
            if before.kind == "letter":
                return token.gap or self.sees("^", ahead=1)
            return before.kind == "symbol" and before.text in (")", "]", "}", "!")
        if token.text == "|" and token.kind == "symbol":
            return not self._bars
        is_remark = token.text == "(" and (self.peek(1).kind == "word" or self.peek(1).text in ("mod", "bmod"))
        return self.sees("(", "[", "{") and not is_remark and not self.sees_end_bracket()

    # Powers

    def _read_power(self, base: Expression | None = None) -> Expression:
        """Reads a base, unless it has been read, and the exponents, factorial signs and degrees behind it."""
        value = self._read_atom() if base is None else base
        while True:
            if self.take("^"):
                is_open = not self.sees("{", "(")
                value = self._raise(value)
                if is_open and self.sees("!"):
                    raise Unreadable("a factorial sign stands behind an exponent without braces")
            elif self.take("!"):
                value = ("double_factorial" if self.take("!") else "factorial", value)
                if self.sees("!"):
                    raise Unreadable("three factorial signs may mean either of two functions")
            elif self.sees("°"):
                value = self._read_degrees(value)
            elif self.sees("{") and self.sees("}", ahead=1):
                self.at += 2
            else:
                return value

    def _raise(self, base: Expression) -> Expression:
        """Reads an exponent, and returns the power."""
        if self.peek().kind == "word" and self.peek().text == "T":
            raise Unreadable("a word is an exponent")
        with self.nest():
            exponent = self._read_exponent()
        return ("power", base, exponent)

    def _read_exponent(self) -> Expression:
        negative = self._read_signs()
        is_group = self.sees("{", "(")
        value = self.read_argument()
        if not is_group and self.take("^"):  # 2^3^4 is 2^(3^4)
            with self.nest():
                value = ("power", value, self._read_exponent())
        return negate(value) if negative else value

    def _read_degrees(self, value: Expression) -> Expression:
        """Reads the sign of degrees, and minutes and seconds behind it."""
        self.expect("°")
        part, size = [value], 60
        while self.peek().kind == "number" and self.sees("'", ahead=1):
            seconds = self.sees("'", ahead=2)
            part.append(("divide", to_number(self.peek().text), number(3600 if seconds else size)))
            self.at += 3 if seconds else 2
        return ("degree", part[0] if len(part) == 1 else ("add", *part))

    def read_argument(self) -> Expression:
        r"""Reads a bracket or one atom: the argument of a root, an exponent."""
        if self.sees("{", "("):
            return self.read_scalar_group()
        return self._read_atom()

    def _read_digit(self) -> Expression:
        r"""Reads an argument that is a bracket or one character: `\frac12` has the arguments 1 and 2."""
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = token._replace(text=token.text[1:])
            return number(int(token.text[0]))
        return self.read_argument()

    def read_scalar_group(self) -> Expression:
        """Reads brackets around one formula. Raises Unreadable if anything else is in them."""
        return to_expression(self.read_group())

    # Atoms

    def _read_atom(self) -> Expression:
        """Reads a number, a variable, a function, or what is between brackets."""
        token = self.peek()
        may_choose = token.text in ("A", "C", "P", "_", "^") or self.peek(1).text in ("C", "P")
        if may_choose and (selection := self.read_selection()) is not None:
            return selection
        if token.kind == "number":
            return self._read_number()
        if token.kind == "letter":
            return self._read_variable()
        if token.kind == "command":
            return self._read_command()
        if self.sees("(", "[", "{"):
            return self.read_scalar_group()
        if self.take("$") and self.peek().kind == "number":
            return self._read_number()
        if self.take("|"):
            return self._read_bars()
        raise Unreadable(f"{token.text!r} begins no number, variable or bracket")

    def _read_bars(self) -> Expression:
        self._bars += 1
        with self.nest():
            value = ("abs", self.read_sum())
        self._bars -= 1
        self.expect("|")
        return value

    def _read_number(self) -> Expression:
        token = self.peek()
        self.at += 1
        if self.sees_command("ldots") and "." in token.text:
            self.at += 1
            return to_number(find_period(token.text))
        if self.take("_"):  # the problem asks for the digits in this base, and no other way of writing the number
            base = self._read_name().removeprefix("base ")
            base = str(number_in_words([base]) or base)
            return to_number(token.text) if base == "10" else ("symbol", f"{token.text} base {base}")
        return to_number(token.text)

    def _read_variable(self) -> Expression:
        """Reads a variable with its primes and subscript; one that is applied to arguments is a function."""
        name = self.peek().text
        if name == "d" and (derivative := self.read_derivative()) is not None:
            return derivative
        self.at += 1
        decorated = False
        while self.sees("'", "_"):
            decorated = True
            name += f"_{self._read_name()}" if self.take("_") else "'" * self.take("'")
        if name in ("e", "i") and not self.sees("[") or decorated and not self.sees("("):
            return ("symbol", name)
        start = self.at
        if self.sees("^") and name in _FUNCTION_LETTERS and (application := self._read_power_of_function(name)):
            return application
        if self.sees("(") or (self.sees("[") and name in ("E", "V")):
            application = self._read_application(name)
            if application is not None:
                return application
            self.at = start
        return ("symbol", name)

    def _read_power_of_function(self, name: str) -> Expression | None:
        """Reads `^{-1}(x)` behind f; None if no argument follows the exponent."""
        start = self.at
        self.at += 1
        exponent = f"{'-' if self.take('-') else ''}{self._read_name()}"
        application = self._read_application(f"{name}^{exponent}") if self.sees("(") else None
        if application is None:
            self.at = start
        return application

    def _read_application(self, name: str) -> Expression | None:
        """Reads the brackets behind a variable as arguments; None if they are a factor: `x(x+1)`."""
        closing = {"(": ")", "[": "]"}[self.peek().text]
        end = self._find_closing(closing)
        inside = self.tokens[self.at + 1 : end]
        has_list = any(token.kind == "symbol" and token.text in ",|<>=≤≥≠" for token in inside)
        is_lone = len(inside) == 1 or (len(inside) == 2 and inside[0].text == "-")
        if not (is_lone or has_list or name[0] in _FUNCTION_LETTERS or "'" in name):
            return None
        self.at = end + 1
        arguments, part = [], []
        for token in [*inside, Token("symbol", ",")]:
            if token.kind == "symbol" and token.text == ",":
                arguments.append(self._read_part(part))
                part = []
            else:
                part.append(token)
        return ("application", name, *arguments)

    def _read_part(self, tokens: list[Token]) -> Expression:
        """Returns an argument; one that is no formula (`X > 2`) is a symbol with its text as name."""
        reader = type(self)(tokens, self.plus_minus, self.depth + 1)
        try:
            value = reader.read_sum()
        except Unreadable:
            reader.at = -1
        if reader.at != len(reader.tokens) or not tokens:
            return ("symbol", " ".join(token.text for token in tokens))
        return value

    def _find_closing(self, closing: str) -> int:
        """Returns the position of the bracket that closes the one here. Raises Unreadable if there is none."""
        depth, opening = 0, self.peek().text
        for position in range(self.at, len(self.tokens)):
            token = self.tokens[position]
            if token.kind == "symbol":
                depth += (token.text == opening) - (token.text == closing)
                if depth == 0:
                    return position
        raise Unreadable(f"a bracket {opening} is not closed")
