"""The comparison of lists, sets, tuples, matrices and congruences."""

import re
from collections.abc import Iterable, Sequence

from .evaluate import Budget
from .functions import to_number
from .identity import are_identical, difference, variables
from .relations import has_reciprocal
from .scalars import Rules, compare_scalars
from .values import ANY, ELLIPSIS, Choice, Congruence, Group, Matrix, Relation, Scalar, Text, Value, number

ITEMS_LIMIT = 100  # of a list whose order does not count


class ListComparison:
    """Comparisons of lists, which compare their items by `compare`."""

    def __init__(self, rules: Rules, budget: Budget):
        self._rules = rules
        self._budget = budget
        self._in_list = False

    def compare(self, reference: Value, given: Value) -> bool | None:
        """Compares two values by the procedure for their types."""
        raise NotImplementedError

    def _ordered(self, reference: Sequence[Value], given: Sequence[Value]) -> bool | None:
        if len(reference) != len(given):
            return False
        before, self._in_list = self._in_list, True
        result = conjunction(self.compare(a, b) for a, b in zip(reference, given, strict=True))
        self._in_list = before
        return result

    def _unordered(self, reference: Sequence[Value], given: Sequence[Value]) -> bool | None:
        """Returns whether each item of one side can be paired with one of the other."""
        if len(reference) != len(given):
            return False
        if len(reference) > ITEMS_LIMIT:
            return None
        before, self._in_list = self._in_list, True
        left, unsure = list(given), False
        for item in reference:
            results = [self.compare(item, other) for other in left]
            if True in results:
                left.pop(results.index(True))
            else:
                unsure = unsure or None in results
                if None not in results:
                    self._in_list = before
                    return False
        self._in_list = before
        return None if unsure else True

    def _as_sets(self, reference: Sequence[Value], given: Sequence[Value]) -> bool | None:
        """Returns whether each item of one side is in the other; repetitions do not count."""
        if max(len(reference), len(given)) > ITEMS_LIMIT:
            return None
        kept: tuple[list[Value], list[Value]] = [], []
        for distinct, items in zip(kept, (reference, given), strict=True):
            for item in items:
                if not any(self.compare(other, item) for other in distinct):
                    distinct.append(item)
        return self._unordered(*kept)

    def _groups(self, reference: Group, given: Group) -> bool | None:
        """Compares sets and lists without order, tuples and intervals with it; a bare list may be either."""
        reference, given = _chunk_like(reference, given), _chunk_like(given, reference)
        symbols = all(isinstance(item, Text) or choice_letter(item) or capitals(item) for item in reference.items)
        if symbols and (reference.conjunction == "or") != (given.conjunction == "or"):  # of statements
            return False
        bounds = all(isinstance(item, Relation) and "=" not in item.signs for item in reference.items)
        if bounds and {reference.conjunction, given.conjunction} == {"and", "or"}:  # of inequalities
            return False
        brackets = {(group.opening, group.closing) for group in (reference, given)}
        if Scalar(ELLIPSIS) in reference.items:  # the order says what is left out
            is_alike = len(brackets - {("", "")}) < 2
            return is_alike and self._ordered(reference.items, given.items)
        if brackets == {("cases", "cases")}:
            return self._unordered(reference.items, given.items)
        if brackets == {("", "")} and not self._rules.ordered:
            is_solutions = all(isinstance(item, Group) for item in reference.items)  # of which none counts twice
            return (self._as_sets if is_solutions else self._unordered)(reference.items, given.items)
        if brackets <= {("", ""), ("{", "}")} and brackets != {("", "")}:
            return self._as_sets(reference.items, given.items)
        pairs = {("", ""), ("(", ")"), ("[", "]")}
        is_interval = len(reference.items) == 2 and ("[", "]") in brackets
        if len(brackets) == 1 or (brackets <= pairs and not is_interval):
            return self._ordered(reference.items, given.items)
        return False

    def _scalar_and_group(self, reference: Scalar, given: Group) -> bool | None:
        """Compares a number also with one that has a decimal comma (`1,5`)."""
        decimal = _decimal(given)
        return self._scalars(reference, decimal) if decimal else self._group_and_scalar(given, reference)

    def _group_and_scalar(self, group: Group, scalar: Scalar) -> bool | None:
        """Compares a set of one with its element, a point with a tuple, and the letters of choices with `AC`."""
        if self._rules.decimal_comma and (decimal := _decimal(group)):
            return self._scalars(decimal, scalar)
        name, *parts = scalar.expression
        if name == "application" and len(parts) > 2 and parts[0][0].isupper():
            return self._groups(group, Group("(", tuple(map(Scalar, parts[1:])), ")"))
        if group.opening == "{" and len(group.items) == 1 and not self._in_list:  # {{1}} is not {1}
            return self.compare(group.items[0], scalar)
        if group.conjunction == "or" and not group.opening:  # 0.75 or 3/4
            return conjunction(self.compare(item, scalar) for item in group.items)
        letters = "".join(map(choice_letter, group.items)).upper()
        is_choices = not group.opening and len(letters) == len(group.items)
        return is_choices and letters == capitals(scalar, ("multiply", "divide"))

    def _matrices(self, reference: Matrix, given: Matrix) -> bool | None:
        if len(reference.rows) != len(given.rows):
            return False
        return conjunction(self._ordered(a, b) for a, b in zip(reference.rows, given.rows, strict=True))

    def _matrix_and_group(self, matrix: Matrix, group: Group) -> bool | None:
        """Compares one column or row with a tuple, and rows with a list of lists."""
        if all(isinstance(item, Group) and item.opening == group.opening in ("(", "[") for item in group.items):
            rows = [group._replace(items=row) for row in matrix.rows]
            return self._ordered(rows, group.items)
        if group.opening == "{" or (len(matrix.rows) > 1 and len(matrix.rows[0]) > 1):
            return False
        return self._ordered([entry for row in matrix.rows for entry in row], group.items)

    def _congruences(self, reference: Congruence, given: Congruence) -> bool | None:
        pairs = [(reference.modulus, given.modulus), (reference.left, given.left)]
        if ANY in (reference.left.expression, given.left.expression):
            pairs = pairs[:1]
        same = conjunction(are_identical(a.expression, b.expression, self._budget) for a, b in pairs)
        if not same:
            return same
        gap = difference(reference.right.expression, given.right.expression)
        return are_identical(("mod", gap, reference.modulus.expression), number(0), self._budget)

    def _scalar_and_congruence(self, reference: Scalar, given: Congruence) -> bool | None:
        r"""Compares a number with the remainder that `7^5 \equiv 2 \pmod 5` states; not checked for a reciprocal."""
        if reference.digits is None or variables(given.left.expression) or given.left.expression == ANY:
            return False
        result = compare_scalars(reference, given.right, self._rules, self._budget)
        if not result or has_reciprocal(given.left.expression):
            return result
        remainder = ("mod", given.left.expression, given.modulus.expression)
        return are_identical(remainder, given.right.expression, self._budget)


def conjunction(results: Iterable[bool | None]) -> bool | None:
    """Returns True if all results are, False if one of them is, else None."""
    unsure = False
    for result in results:
        if result is False:
            return False
        unsure = unsure or result is None
    return None if unsure else True


def _decimal(group: Group) -> Scalar | None:
    """Returns 1.5 for `1,5`; None for any other list."""
    digits = [getattr(item, "digits", None) or "" for item in group.items]
    if group.conjunction != "," or not re.fullmatch(r"-?\d+,(?:\d{1,2}|\d{4,})", ",".join(digits)):
        return None
    return Scalar(to_number(".".join(digits)), ".".join(digits))


def _chunk_like(group: Group, other: Group) -> Group:
    """Returns `x=1, y=2; x=3, y=4` for `x=1, y=2, x=3, y=4` if the other answer is grouped so."""
    if not any(isinstance(item, Group) and not item.opening for item in other.items):
        return group
    if not group.items or not all(isinstance(item, Relation) for item in group.items):
        return group
    chunks = chunk(group.items, [item.sides[0] for item in group.items])
    return group._replace(items=tuple(chunks)) if chunks else group


def chunk(items: Sequence[Value], names: Sequence[Value]) -> list[Group]:
    """Returns `x=1, y=2` and `x=3, y=4` for the four of them; nothing if their names do not repeat in one order."""
    length = names.index(names[0], 1) if names[0] in names[1:] else len(names)
    starts = range(0, len(names), length)
    if any(names[start : start + length] != names[:length] for start in starts):
        return []
    return [Group("", tuple(items[start : start + length]), "") for start in starts]


def choice_letter(value: Value) -> str:
    """Returns the letter of a choice, or a letter that stands alone."""
    if isinstance(value, Choice):
        return value.letter
    is_letter = isinstance(value, Scalar) and value.expression[0] == "symbol" and len(value.expression[1]) == 1
    if is_letter:
        return value.expression[1]
    if isinstance(value, Text) and len(value.tokens) == 1 and len(value.tokens[0]) == 1:
        return value.tokens[0]
    return ""


def circled(value: Value) -> str:
    """Returns the statements that an answer names by circled numbers, in its order: `①③`; empty for anything else."""
    items = value.items if isinstance(value, Group) and not value.opening else (value,)
    marks = "".join("".join(item.tokens) if isinstance(item, Text) else "?" for item in items)
    return marks if re.fullmatch("[①-⑳]+", marks) else ""


def capitals(value: Value, operations: tuple[str, ...] = ("multiply",)) -> str:
    """Returns the capital letters that stand side by side, in their order: `ABC`; empty for anything else.

    Two are a segment, so `BA` gives `AB`.
    """
    if isinstance(value, Text):
        name = value.tokens[0].upper() if len(value.tokens) == 1 else ""
    else:
        name, expression = "", value.expression if isinstance(value, Scalar) else ("",)
        while expression[0] in operations:
            expression, last = expression[1:]
            name = (last[1] if last[0] == "symbol" else "1") + name
        name = expression[1] + name if expression[0] == "symbol" else ""
    if len(name) < 2 or not (name.isalpha() and name.isupper()):
        return ""
    return name if len(name) > 2 else "".join(sorted(name))
