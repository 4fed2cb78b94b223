"""Exact scalars: sums of rational multiples of products of square roots, i, variables and functions.

`\\frac{1+\\sqrt{5}}{2}` and `3x^2 - \\pi` have one form each. Equal forms are equal numbers. Where no function, no
general power and no quotient is left, different forms are different numbers (π and e count as variables: no polynomial
relation between them is known).
"""

import math
from fractions import Fraction
from functools import cached_property

Atom = str | tuple  # a variable, "pi", "e", or a function of polynomials: ("sin", argument), ("pow", base, power)
Key = tuple[int, int, tuple[tuple[Atom, int], ...]]  # square-free radicand, power of i (0 or 1), atoms and their powers

BITS_LIMIT = 1 << 16  # of an exact number: 2004! has 19,000 bits
TERMS_LIMIT = 200

_ONE: Key = (1, 0, ())


class TooBig(ValueError):
    """Exact arithmetic would cost too much: a power tower, a factorial of a factorial, a million terms."""


class Polynomial:
    """An immutable sum of terms.

    Attributes:
      terms: the rational factor, never 0, of each product (radicand, power of i, atoms).
    """

    def __init__(self, terms: dict[Key, Fraction]):
        """Drops the terms whose factor is 0.

        Raises:
          TooBig: for more terms or longer numbers than the limits.
        """
        self.terms = {key: factor for key, factor in terms.items() if factor}
        if len(self.terms) > TERMS_LIMIT:
            raise TooBig(f"a sum has more than {TERMS_LIMIT} terms")
        for factor in self.terms.values():
            if factor.numerator.bit_length() + factor.denominator.bit_length() > BITS_LIMIT:
                raise TooBig(f"a number has more than {BITS_LIMIT} bits")

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
            raise TooBig("a product of two sums is too long")
        terms: dict[Key, Fraction] = {}
        for key, factor in self.terms.items():
            for other_key, other_factor in other.terms.items():
                product, extra = _multiply_keys(key, other_key)
                terms[product] = terms.get(product, 0) + factor * other_factor * extra
        return Polynomial(terms)

    @property
    def rational(self) -> Fraction | None:
        """The value of a rational number; None for anything else."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get(_ONE) if len(self.terms) == 1 else None

    @property
    def atoms(self) -> set[Atom]:
        """The variables and functions of its terms, without those inside functions."""
        return {atom for _, _, atoms in self.terms for atom, _ in atoms}

    @property
    def has_functions(self) -> bool:
        """Whether functions occur in it, so that different forms can be the same number."""
        return any(isinstance(atom, tuple) for atom in self.atoms)

    @property
    def variable(self) -> str | None:
        """The name of a single variable; None for anything else."""
        if len(self.terms) != 1:
            return None
        ((radicand, imaginary, atoms), factor) = next(iter(self.terms.items()))
        is_one_atom = radicand == 1 and not imaginary and factor == 1 and len(atoms) == 1 and atoms[0][1] == 1
        return atoms[0][0] if is_one_atom and isinstance(atoms[0][0], str) else None

    def to_monic(self) -> "Polynomial":
        """Returns the multiple with leading factor 1, the same for all multiples of a polynomial."""
        return self * number(1 / self.leading_factor) if self.terms else self

    @property
    def leading_factor(self) -> Fraction:
        """The factor of the first term in a fixed order; 0 if it has no terms."""
        return self.terms[min(self.terms, key=_key_text)] if self.terms else Fraction(0)


def _key_text(key: Key) -> str:
    radicand, imaginary, atoms = key
    return f"{radicand}.{imaginary}." + ".".join(f"{atom!r}^{power}" for atom, power in atoms)


def _multiply_keys(left: Key, right: Key) -> tuple[Key, int]:
    """Returns the product of two products and its whole factor: √6·√10 = 2·√15, i·i = -1, powers of one atom add."""
    common = math.gcd(left[0], right[0])
    radicand = left[0] * right[0] // (common * common)
    imaginary = left[1] + right[1]
    sign = -1 if imaginary == 2 else 1
    if not left[2] or not right[2]:
        return (radicand, imaginary % 2, left[2] or right[2]), common * sign
    powers = dict(left[2])
    for atom, power in right[2]:
        powers[atom] = powers.get(atom, 0) + power
    atoms = tuple(sorted(((a, p) for a, p in powers.items() if p), key=lambda pair: repr(pair[0])))
    return (radicand, imaginary % 2, atoms), common * sign


def number(value: Fraction | int) -> Polynomial:
    """Returns a rational number."""
    return Polynomial({_ONE: Fraction(value)})


def atom(value: Atom) -> Polynomial:
    """Returns a variable, or a function of polynomials."""
    return Polynomial({(1, 0, ((value, 1),)): Fraction(1)})


IMAGINARY = Polynomial({(1, 1, ()): Fraction(1)})
PI, EULER = atom("pi"), atom("e")
