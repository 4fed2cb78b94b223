"""The comparison of two answers: one procedure for each pair of types.

Each returns True for a proof that they are the same, False for a proof that they differ, and None where it cannot tell.
"""

import re
import string
from collections.abc import Callable
from typing import Any

from . import relations, sets
from .evaluate import Budget, Undecided, Undefined
from .identity import are_identical, variables
from .lists import ListComparison, capitals, choice_letter, chunk, circled, conjunction
from .scalars import DEFAULT, Rules, compare_scalars, is_decimal, is_roman, is_rounding
from .values import (
    Builder,
    Choice,
    Conditional,
    Congruence,
    Group,
    Matrix,
    Ratio,
    Relation,
    Scalar,
    SetExpression,
    Text,
    Value,
    rename,
)  # fmt: skip

_SYNONYMS = {"dne": "does not exist"}
_KINDS = {"prime", "primes", "odd", "even"}  # of numbers, which restrict an answer
_LINKS = {"for", "where", "with", "if", "given", "such", "that", "all", "any", "every", "each"}  # before a condition


def compare(reference: Value, given: Value, rules: Rules = DEFAULT, budget: Budget | None = None) -> bool | None:
    """Compares two values of any types."""
    try:
        return Comparison(rules, budget or Budget()).compare(reference, given)
    except (Undecided, Undefined, RecursionError):
        return None


class Comparison(ListComparison):
    """Comparisons that share one budget of steps."""

    def compare(self, reference: Value, given: Value) -> bool | None:
        """Compares two values by the procedure for their types."""
        reference, given = relations.spread_names(reference), relations.spread_names(given)
        if reference == given and not isinstance(reference, Text):
            return True
        if isinstance(reference, Conditional) or isinstance(given, Conditional):
            return self._conditionals(reference, given)
        if isinstance(reference, Choice) or isinstance(given, Choice):
            return self._choices(reference, given)
        if isinstance(reference, Text) or isinstance(given, Text):
            return self._texts(reference, given)
        if isinstance(reference, Relation) and isinstance(given, Relation):
            return self._relations(reference, given)
        reference, given = self._state(reference, given, True), self._state(given, reference, False)
        if sets.is_set_like(reference) or sets.is_set_like(given):
            return self._sets(reference, given)
        procedure = self._procedures().get((type(reference), type(given)))
        return False if procedure is None else procedure(reference, given)

    def _procedures(self) -> dict[tuple[type, type], Callable[[Any, Any], bool | None]]:
        def mirrored(procedure: Callable[[Any, Any], bool | None]) -> Callable[[Any, Any], bool | None]:
            return lambda reference, given: procedure(given, reference)

        return {
            (Scalar, Scalar): self._scalars,
            (Group, Group): self._groups,
            (Scalar, Group): self._scalar_and_group,
            (Group, Scalar): self._group_and_scalar,
            (Ratio, Ratio): self._ratios,
            (Ratio, Scalar): self._ratio_and_scalar,
            (Scalar, Ratio): mirrored(self._ratio_and_scalar),
            (Matrix, Matrix): self._matrices,
            (Matrix, Group): self._matrix_and_group,
            (Group, Matrix): mirrored(self._matrix_and_group),
            (Congruence, Congruence): self._congruences,
            (Scalar, Congruence): self._scalar_and_congruence,
        }

    def _state(self, value: Value, other: Value, is_reference: bool) -> Value:
        """Returns what an equation, or a list of equations, states, to compare it with what is no equation."""
        if isinstance(value, Relation):
            rounded = None if is_reference else self._find_rounded(value, other)
            return rounded or relations.value_of(value, self._are_near, is_reference)
        if isinstance(value, Group) and not value.opening and not _has_relations(other):
            return self._state_list(value)
        return value

    def _find_rounded(self, value: Relation, reference: Value) -> Value | None:
        r"""Returns 1.41 for `\sqrt2 \approx 1.41` if the reference is a decimal number; None for no rounded value."""
        if value.signs[-1] != "≈" or not isinstance(reference, Scalar) or variables(reference.expression):
            return None
        before, last = value.sides[-2:]
        if not is_decimal(reference) or not all(isinstance(side, Scalar) for side in value.sides[-2:]):
            return None
        if variables(before.expression):
            equation = value._replace(signs=tuple("=" if sign == "≈" else sign for sign in value.signs))
            return relations.value_of(equation, self._are_near, False)
        return last if is_rounding(last, before, self._budget) else None

    def _state_list(self, group: Group) -> Value:
        """Returns (1, 2) for `x=1, y=2`, and the list 1, 2 for `x=1, x=2` and `x=1, 2`; also of such pairs."""
        equations = [item for item in group.items if isinstance(item, Relation)]
        names = [equation.sides[0] for equation in equations]
        if group.items[0] not in equations or not all(map(relations.is_name, names)):
            return group
        items = tuple(relations.value_of(item, self._are_near, True) for item in group.items)
        if any(isinstance(item, Relation) for item in items):
            return group
        if len(set(names)) == 1:
            return group._replace(items=items)
        if len(set(names)) < len(items):
            chunks = chunk(group.items, names) if len(names) == len(items) else []
            pairs = tuple(map(self._state_list, chunks)) if len(chunks) > 1 else ()
            return group._replace(items=pairs, conjunction="") if pairs else group
        letters = [name.expression[1] if isinstance(name, Scalar) else name for name in names]
        if all(isinstance(letter, str) for letter in letters) and "".join(sorted(letters)) in string.ascii_letters:
            items = tuple(items[letters.index(letter)] for letter in sorted(letters))  # x goes before y
        return Group("(", items, ")")

    # Wrappers

    def _conditionals(self, reference: Value, given: Value) -> bool | None:
        """Compares values whose conditions are equal, missing, or hold for all values of a variable."""
        conditions = [value.condition if isinstance(value, Conditional) else () for value in (reference, given)]
        values = [value.value if isinstance(value, Conditional) else value for value in (reference, given)]
        free = [_is_universal(condition) for condition in conditions]
        domains = [condition[1::2] for condition in conditions if "∈" in condition[2:3]]  # (k, ℤ)
        if len(domains) == 2:
            values[1] = rename(values[1], {domains[1][0]: domains[0][0], domains[0][0]: domains[1][0]})
            if domains[0][1:] != domains[1][1:]:
                return False
        left, right = (tuple(part for part in condition if part not in _LINKS) for condition in conditions)
        if left != right and not all(free) and not (conditions[1] == () and conditions[0]):
            return False
        result = self.compare(*values)
        is_family = len(domains) == 2 and domains[0][1] == "ℤ" and relations.are_numbers(*values)
        if result or not is_family:
            return result
        sides = (value.sides[1] if isinstance(value, Relation) else value for value in values)
        return relations.are_shifted(*(side.expression for side in sides), domains[0][0], self._budget) or result

    def _choices(self, reference: Value, given: Value) -> bool | None:
        """Compares letters; a choice with its text is also equal to that text."""
        letters = [choice_letter(value) for value in (reference, given)]
        if all(letters):
            values = [value.value for value in (reference, given) if isinstance(value, Choice)]
            same_text = len(values) < 2 or Text((), False) in values or self.compare(*values)
            return same_text if letters[0].upper() == letters[1].upper() else False
        choice, other = (reference, given) if isinstance(reference, Choice) else (given, reference)
        if choice.value == Text((), False):
            return False
        return self.compare(choice.value, other)

    def _texts(self, reference: Value, given: Value) -> bool | None:
        letters = [choice_letter(value) for value in (reference, given)]
        if all(letters):
            return letters[0].upper() == letters[1].upper()
        for names in zip(*((capitals(value), circled(value)) for value in (reference, given)), strict=True):
            if all(names):
                return names[0] == names[1]
        if isinstance(reference, Text) and isinstance(given, Text):
            left, right = (_to_words(text) if text.is_words else text.tokens for text in (reference, given))
            return left == right or None
        return False

    # Relations and sets

    def _relations(self, reference: Relation, given: Relation) -> bool | None:
        left = relations.drop_approximations(reference)
        right = relations.rename_argument(relations.drop_approximations(given), left)
        if not (isinstance(left, Relation) and isinstance(right, Relation)):
            return self.compare(left, right)
        stated = [relations.value_of(side, self._are_near_or_work, side is left) for side in (left, right)]
        if not any(isinstance(value, Relation) for value in stated):
            names = _name_of(left), _name_of(right)
            is_alike = names[0] == names[1] or not relations.is_name(stated[0])  # CD is no value of AB = CD
            if None not in names and is_alike and relations.are_names_compatible(*names):
                return self.compare(*stated)
        if sets.is_set_like(left) and sets.is_set_like(right):
            result = self._sets(left, right)
            if result is not None:
                return result
        return relations.are_equivalent(left, right, self.compare, self._budget)

    def _sets(self, reference: Value, given: Value) -> bool | None:
        """Compares sets of numbers; intervals with symbols as ends side by side."""
        if isinstance(reference, Scalar) or isinstance(given, Scalar):
            return False
        if reference == given:
            return True
        if isinstance(reference, Relation) and isinstance(given, Relation):
            names = relations.bounded_side(reference), relations.bounded_side(given)
            if None not in names and names[0] != names[1] and all(map(relations.is_name, names)):
                return False
        left, right = (
            relations.to_interval(value) or value if isinstance(value, Relation) else value
            for value in (reference, given)
        )
        groups = isinstance(left, Group) and isinstance(right, Group) and bool(left.opening and right.opening)
        if groups and (result := self._groups(left, right)):  # also with rounded or symbolic ends
            return result
        try:
            return sets.are_same_sets(left, right, self._budget)
        except (Undecided, Undefined):
            pass
        if isinstance(left, Group) and isinstance(right, Group):
            return self._groups(left, right)
        if isinstance(left, SetExpression) and isinstance(right, SetExpression):
            if left.signs != right.signs:
                return None
            if set(left.signs) == {"∖"}:
                return self._ordered(left.parts, right.parts) or None
            return self._unordered(left.parts, right.parts) or None
        if isinstance(left, Builder) and isinstance(right, Builder):
            return self._ordered(left, right) or None
        return None

    # Scalars

    def _are_near_or_work(self, reference: Value, given: Value) -> bool | None:
        """As `_are_near`, but a sum or product that leads to the value of a name may have a mistake."""
        return relations.is_calculation(given) or self._are_near(reference, given)

    def _are_near(self, reference: Value, given: Value) -> bool | None:
        """Compares two sides of an equation, of which one may be rounded to two decimals."""
        return Comparison(self._rules._replace(precision=2), self._budget).compare(reference, given)

    def _scalars(self, reference: Scalar, given: Scalar) -> bool | None:
        if self._in_list and reference.unit and given.unit and reference.unit != given.unit:
            return False
        names = capitals(reference), capitals(given)
        if all(names):  # a name, and no product
            return names[0] == names[1]
        result = compare_scalars(reference, given, self._rules, self._budget)
        return result or is_roman(reference, given) or result

    def _ratios(self, reference: Ratio, given: Ratio) -> bool | None:
        if reference.is_clock or given.is_clock:
            same_half = not reference.half or reference.half == given.half
            return same_half and self._ordered(reference.terms, given.terms)
        if len(reference.terms) != len(given.terms):
            return False
        (first, *rest), (other, *others) = ([term.expression for term in ratio.terms] for ratio in (reference, given))
        pairs = zip(rest, others, strict=True)
        return conjunction(
            are_identical(("multiply", first, b), ("multiply", other, a), self._budget) for a, b in pairs
        )

    def _ratio_and_scalar(self, ratio: Ratio, scalar: Scalar) -> bool | None:
        """Compares `3:4` with 3/4. A time with minutes below 10 is no quotient."""
        top, *bottom = (term.expression for term in ratio.terms)
        if len(bottom) != 1 or ratio.half or scalar.unit or (ratio.is_clock and bottom[0][1] < 10):
            return False
        return self._scalars(Scalar(("divide", top, bottom[0])), scalar)


def _has_relations(value: Value) -> bool:
    items = value.items if isinstance(value, Group) else (value,)
    return any(
        isinstance(item, Relation | Group) and (isinstance(item, Relation) or _has_relations(item)) for item in items
    )


def _is_universal(condition: tuple[str, ...]) -> bool:
    """Returns whether a condition is none, or holds for all values: "for all x"."""
    words = "".join(part if part.isalpha() or part in ",∈" else "?" for part in condition)
    if _KINDS & {*condition}:
        return False
    return not condition or condition[0] == "for" and not re.search(r"\?|∈(?![ℝℤℕℚRZNQ])", words)


def _to_words(text: Text) -> str:
    words = re.sub(r"^(?:an?|the) (?=\w)", "", " ".join(text.tokens).casefold())
    words = re.sub(r"\b([a-z]) (?=[a-z]\b)", r"\1", words)  # quadrant II
    return _SYNONYMS.get(words, words)


def _name_of(relation: Relation) -> Value | None:
    """Returns the name whose value an equation states; None if it states none."""
    first, last = relation.sides[0], relation.sides[-1]
    if relations.is_name(first) or relations.is_compound_name(first):
        return first
    return last if relations.is_name(last) else None
