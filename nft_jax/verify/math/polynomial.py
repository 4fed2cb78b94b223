"""Exact scalars: sums of rational multiples of products of square roots, i, variables and functions.

`\\frac{1+\\sqrt{5}}{2}` and `3x^2 - \\pi` have one form each: equal forms are equal numbers, and where no function, no
general power and no quotient is left, different forms are different numbers (π and e count as variables: no polynomial
relation between them is known). No third-party imports.
"""

import math
from fractions import Fraction
from functools import cached_property

Atom = str | tuple  # a variable, "pi", "e", or a function of polynomials: ("sin", argument), ("pow", base, power)
Key = tuple[int, int, tuple[tuple[Atom, int], ...]]  # square-free radicand, power of i (0 or 1), atoms and their powers

BITS_LIMIT = 1 << 16  # of an exact number: 2004! has 19,000 bits
TERMS_LIMIT = 200
POWER_LIMIT = 64  # of a sum with more than one term
FACTORIAL_LIMIT = 4000
RADICAND_LIMIT = 10**12  # above, squares are not looked for inside: that would need its factors

ONE_KEY: Key = (1, 0, ())


class TooBig(ValueError):
    """Exact arithmetic would cost too much: a power tower, a factorial of a factorial, a million terms."""


class Polynomial:
    """Immutable; `terms` maps a product (radicand, i, atoms) to its rational factor, never 0."""

    def __init__(self, terms: dict[Key, Fraction]):
        """Raises TooBig for more terms or longer numbers than the limits."""
        self.terms = {key: factor for key, factor in terms.items() if factor}
        if len(self.terms) > TERMS_LIMIT:
            raise TooBig(f"more than {TERMS_LIMIT} terms")
        for factor in self.terms.values():
            if factor.numerator.bit_length() + factor.denominator.bit_length() > BITS_LIMIT:
                raise TooBig(f"a number of more than {BITS_LIMIT} bits")

    @cached_property
    def _frozen(self) -> frozenset:
        return frozenset(self.terms.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self._frozen == other._frozen

    @cached_property
    def _hash(self) -> int:
        return hash(self._frozen)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _text(self) -> str:
        # Hexadecimal: Python refuses to write long numbers in decimal.
        parts = (f"{f.numerator:x}/{f.denominator:x}*{_key_text(key)}" for key, f in self.terms.items())
        return "+".join(sorted(parts))

    def __repr__(self) -> str:
        return f"({self._text})"

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __add__(self, other: "Polynomial") -> "Polynomial":
        terms = dict(self.terms)
        for key, factor in other.terms.items():
            terms[key] = terms.get(key, 0) + factor
        return Polynomial(terms)

    def __neg__(self) -> "Polynomial":
        return Polynomial({key: -factor for key, factor in self.terms.items()})

    def __sub__(self, other: "Polynomial") -> "Polynomial":
        return self + -other

    def __mul__(self, other: "Polynomial") -> "Polynomial":
        if len(self.terms) * len(other.terms) > TERMS_LIMIT * 10:
            raise TooBig("a product of long sums")
        terms: dict[Key, Fraction] = {}
        for key, factor in self.terms.items():
            for other_key, other_factor in other.terms.items():
                product, extra = _times(key, other_key)
                terms[product] = terms.get(product, 0) + factor * other_factor * extra
        return Polynomial(terms)

    @property
    def rational(self) -> Fraction | None:
        """Its value, if it is a rational number."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get(ONE_KEY) if len(self.terms) == 1 else None

    @property
    def atoms(self) -> set[Atom]:
        """The variables and functions that it is made of (not those inside functions)."""
        return {atom for _, _, atoms in self.terms for atom, _ in atoms}

    @property
    def opaque(self) -> bool:
        """Whether functions occur, so that different forms can be the same number."""
        return any(isinstance(atom, tuple) for atom in self.atoms)

    @property
    def variable(self) -> str | None:
        """Its name, if it is a single variable."""
        if len(self.terms) != 1:
            return None
        ((radicand, turn, atoms), factor) = next(iter(self.terms.items()))
        lone = radicand == 1 and not turn and factor == 1 and len(atoms) == 1 and atoms[0][1] == 1
        return atoms[0][0] if lone and isinstance(atoms[0][0], str) else None

    def scaled(self) -> "Polynomial":
        """The multiple of it whose first term, in a fixed order, has factor 1: the same for all its multiples."""
        return self * number(1 / self.lead) if self.terms else self

    @property
    def lead(self) -> Fraction:
        """The factor of the first term in a fixed order; 0 of nothing."""
        return self.terms[min(self.terms, key=_key_text)] if self.terms else Fraction(0)


def _key_text(key: Key) -> str:
    radicand, turn, atoms = key
    return f"{radicand}.{turn}." + ".".join(f"{atom!r}^{power}" for atom, power in atoms)


def _times(left: Key, right: Key) -> tuple[Key, int]:
    """The product of two products: √6·√10 = 2·√15, i·i = -1, powers of one atom add."""
    common = math.gcd(left[0], right[0])
    radicand = left[0] * right[0] // (common * common)
    turn = left[1] + right[1]
    sign = -1 if turn == 2 else 1
    if not left[2] or not right[2]:
        return (radicand, turn % 2, left[2] or right[2]), common * sign
    powers = dict(left[2])
    for atom, power in right[2]:
        powers[atom] = powers.get(atom, 0) + power
    atoms = tuple(sorted(((a, p) for a, p in powers.items() if p), key=lambda pair: repr(pair[0])))
    return (radicand, turn % 2, atoms), common * sign


def number(value: Fraction | int) -> Polynomial:
    """A rational number."""
    return Polynomial({ONE_KEY: Fraction(value)})


def atom(value: Atom) -> Polynomial:
    """A variable, or a function of polynomials."""
    return Polynomial({(1, 0, ((value, 1),)): Fraction(1)})


IMAGINARY = Polynomial({(1, 1, ()): Fraction(1)})
PI, EULER = atom("pi"), atom("e")


def inverse(value: Polynomial) -> Polynomial:
    """1 / value. Raises ZeroDivisionError for 0."""
    if not value:
        raise ZeroDivisionError("division by 0")
    if len(value.terms) > 1:
        return number(1 / value.lead) * atom(("inverse", value.scaled()))
    ((radicand, turn, atoms), factor) = next(iter(value.terms.items()))
    # 1/√r = √r/r and 1/i = -i.
    flipped = (radicand, turn, tuple((a, -power) for a, power in atoms))
    return Polynomial({flipped: (-1 if turn else 1) / (factor * radicand)})


def power(base: Polynomial, exponent: Polynomial) -> Polynomial:
    """base ** exponent. Raises TooBig, or ZeroDivisionError for a negative power of 0."""
    value = exponent.rational
    if value is None:
        return atom(("pow", base, exponent))
    if value.denominator > 1:
        return _whole_power(root(base, value.denominator), value.numerator)
    return _whole_power(base, value.numerator)


def _whole_power(base: Polynomial, exponent: int) -> Polynomial:
    if exponent < 0:
        return _whole_power(inverse(base), -exponent)
    value = base.rational
    if value is not None:
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if value not in (0, 1, -1) and bits * exponent > BITS_LIMIT:
            raise TooBig(f"a power of more than {BITS_LIMIT} bits")
        return number(value ** (exponent if value not in (1, -1) else exponent % 2))
    if len(base.terms) == 1 and exponent <= BITS_LIMIT:
        return _product_power(base, exponent)
    if exponent > POWER_LIMIT:
        raise TooBig(f"a power above {POWER_LIMIT} of a sum")
    result = number(1)
    for _ in range(exponent):
        result = result * base
    return result


def _product_power(base: Polynomial, exponent: int) -> Polynomial:
    """The power of a single term, by repeated squaring."""
    result = number(1)
    while exponent:
        if exponent & 1:
            result = result * base
        exponent >>= 1
        if exponent:
            base = base * base
    return result


def root(base: Polynomial, degree: int) -> Polynomial:
    """The principal root; of a rational number exactly where it is rational or a square root."""
    value = base.rational
    if value is None or (degree > 2 and value < 0) or degree > BITS_LIMIT:
        return atom(("root", base, degree))
    if degree == 2:
        return _square_root(value)
    top, bottom = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
    return atom(("root", base, degree)) if top is None or bottom is None else number(Fraction(top, bottom))


def _whole_root(value: int, degree: int) -> int | None:
    """The whole number whose power `degree` is `value`, by bisection; None if there is none."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < value else (low, middle)
    return low if low**degree == value else None


def _square_root(value: Fraction) -> Polynomial:
    """√(p/q) = √(pq)/q, with all squares taken out of pq; √-1 = i."""
    product = abs(value.numerator) * value.denominator
    whole = math.isqrt(product)
    if whole * whole == product:
        result = number(Fraction(whole, value.denominator))
    elif product > RADICAND_LIMIT:
        result = atom(("root", number(abs(value)), 2))
    else:
        outside, inside = _split_squares(product)
        result = Polynomial({(inside, 0, ()): Fraction(outside, value.denominator)})
    return result * IMAGINARY if value < 0 else result


def _split_squares(value: int) -> tuple[int, int]:
    """(a, b) with value = a²b and b square-free: primes up to the cube root, then what is left is p, pq or p²."""
    outside, inside, prime = 1, 1, 2
    while prime * prime * prime <= value:
        while value % (prime * prime) == 0:
            value //= prime * prime
            outside *= prime
        if value % prime == 0:
            value //= prime
            inside *= prime
        prime += 1 if prime == 2 else 2
    whole = math.isqrt(value)
    return (outside * whole, inside) if whole * whole == value else (outside, inside * value)


def factorial(value: Polynomial) -> Polynomial:
    """value! Raises TooBig above `FACTORIAL_LIMIT`."""
    whole = value.rational
    if whole is None or whole.denominator > 1 or whole < 0:
        return atom(("factorial", value))
    if whole > FACTORIAL_LIMIT:
        raise TooBig(f"a factorial above {FACTORIAL_LIMIT}!")
    return number(math.factorial(int(whole)))


def binomial(top: Polynomial, bottom: Polynomial) -> Polynomial:
    """The binomial coefficient. Raises TooBig above `FACTORIAL_LIMIT`."""
    n, k = top.rational, bottom.rational
    if n is None or k is None or n.denominator > 1 or k.denominator > 1 or n < 0 or k < 0:
        return atom(("binomial", top, bottom))
    if n > FACTORIAL_LIMIT:
        raise TooBig(f"a binomial coefficient above {FACTORIAL_LIMIT}")
    return number(math.comb(int(n), int(k)))


def absolute(value: Polynomial) -> Polynomial:
    """|value|."""
    known = value.rational
    return atom(("abs", value)) if known is None else number(abs(known))


def function(name: str, *arguments: Polynomial) -> Polynomial:
    """A function that is looked into only numerically, except where it is rounding of a rational number."""
    known = arguments[0].rational
    if known is not None and name in ("floor", "ceil"):
        return number(getattr(math, name)(known))
    return atom((name, *arguments))
