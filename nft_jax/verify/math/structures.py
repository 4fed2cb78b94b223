"""The values of texts, brackets and determinants from what is inside them."""

from .cursor import Unreadable
from .functions import to_expression
from .identity import variables
from .tokens import Token
from .values import Builder, Conditional, Expression, Group, Matrix, NumberSet, Relation, Scalar, Text, Value

_SIZE_LIMIT = _FACTORS_LIMIT = 4  # rows and factors, as formulas grow with one to the power of the other
_DOMAINS = {NumberSet(name): name for name in "ℤℕ"} | {Scalar(("symbol", "Z")): "ℤ", Scalar(("symbol", "N")): "ℕ"}
_PUNCTUATION = (".", ",", ";", "!", ":")


def to_text(tokens: list[Token]) -> Text:
    if len(tokens) > 1 and tokens[-1].kind == "symbol" and tokens[-1].text in _PUNCTUATION:
        tokens = tokens[:-1]
    is_words = all(token.kind in ("word", "letter", "number") or token.text in ("-", "'", ",", ".") for token in tokens)
    is_words = is_words and any(token.kind == "word" for token in tokens)
    return Text(tuple(fold(token) for token in tokens), is_words)


def fold(token: Token) -> str:
    return token.text.casefold() if token.kind == "word" else token.text


def group(items: list[Value]) -> Value:
    if not items:
        raise Unreadable("a system has no rows")
    return items[0] if len(items) == 1 else Group("", tuple(items), "")


def close(opening: str, inner: Value, closing: str) -> Value:
    """Returns the value of brackets around `inner`."""
    several = isinstance(inner, Group) and not inner.opening
    if isinstance(inner, Builder):
        return _to_family(inner)
    if opening == "⦃" or (opening == "{" and several):
        return Group("{", inner.items if several else (inner,), "}")
    if several:
        opening, closing = opening.replace("]", "(").replace("⟨", "("), closing.replace("[", ")").replace("⟩", ")")
        return Group(opening, inner.items, closing)
    if (opening, closing) not in (("(", ")"), ("[", "]"), ("{", "}")):
        raise Unreadable(f"{opening} and {closing} stand around one value: an interval needs two")
    return inner


def _to_family(value: Builder) -> Value:
    r"""Returns `x = kπ` for k in ℤ for `\{x \mid x = kπ, k \in ℤ\}`, and `kπ` so for `\{kπ \mid k \in ℤ\}`."""
    condition = value.condition
    rows = condition.items if isinstance(condition, Group) and not condition.opening else (condition,)
    name, domain = rows[-1].sides if getattr(rows[-1], "signs", ()) == ("∈",) else (None, None)
    stated = rows[0] if len(rows) == 2 else value.element
    is_name = isinstance(name, Scalar) and name.expression[0] == "symbol" and stated != name
    if domain not in _DOMAINS or not is_name or len(rows) > 2 or name.expression[1] not in variables(*sides_of(stated)):
        return value
    return Conditional(stated, ("for", name.expression[1], "∈", _DOMAINS[domain]))


def sides_of(value: Value) -> list[Expression]:
    """Returns the formula that a value is, or those behind the first sign of a relation."""
    sides = value.sides[1:] if isinstance(value, Relation) else (value,)
    return [side.expression for side in sides if isinstance(side, Scalar)]


def to_matrix(name: str, rows: list[list[Scalar]]) -> Value:
    """Returns the matrix of an environment, or its determinant."""
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("the rows of a matrix differ in length")
    if name != "vmatrix":
        return Matrix(tuple(map(tuple, rows)))
    if len(rows) != len(rows[0]) or len(rows) > _SIZE_LIMIT:
        raise Unreadable(f"a determinant is not square, or larger than {_SIZE_LIMIT}")
    return Scalar(_determinant([[to_expression(entry) for entry in row] for row in rows]))


def _determinant(rows: list[list[Expression]]) -> Expression:
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, entry in enumerate(rows[0]):
        minor = _determinant([row[:column] + row[column + 1 :] for row in rows[1:]])
        term = ("multiply", entry, minor)
        terms.append(("negative", term) if column % 2 else term)
    return ("add", *terms)


def multiply(left: Matrix, right: Value, factors: int) -> Matrix:
    """Returns the product of two matrices, of which the second is factor number `factors`."""
    if not isinstance(right, Matrix) or len(left.rows[0]) != len(right.rows):
        raise Unreadable("the sizes of two matrices do not fit")
    if factors > _FACTORS_LIMIT or max(map(len, (left.rows, right.rows, right.rows[0]))) > _SIZE_LIMIT:
        raise Unreadable(f"a product of matrices has over {_FACTORS_LIMIT} factors, or over {_SIZE_LIMIT} rows")
    columns = list(zip(*right.rows, strict=True))
    return Matrix(tuple(tuple(Scalar(_dot(row, column)) for column in columns) for row in left.rows))


def add(left: Matrix, right: Value) -> Matrix:
    """Returns the sum of two matrices."""
    if not isinstance(right, Matrix) or [*map(len, left.rows)] != [*map(len, right.rows)]:
        raise Unreadable("the sizes of two matrices do not fit")
    rows = zip(left.rows, right.rows, strict=True)
    return Matrix(tuple(tuple(map(_add, *pair)) for pair in rows))


def _add(left: Scalar, right: Scalar) -> Scalar:
    return Scalar(("add", to_expression(left), to_expression(right)))


def transpose(matrix: Value) -> Value:
    """Returns a matrix with rows for columns, and a tuple as a column."""
    if isinstance(matrix, Group) and all(isinstance(item, Scalar) for item in matrix.items):
        return Matrix(tuple((item,) for item in matrix.items))
    if not isinstance(matrix, Matrix):
        raise Unreadable("only matrices are transposed")
    return Matrix(tuple(zip(*matrix.rows, strict=True)))


def scale(factor: Expression, matrix: Value) -> Value:
    """Returns a matrix, or the determinant of one, times a number."""
    if isinstance(matrix, Scalar):
        return Scalar(("multiply", factor, matrix.expression))
    return Matrix(
        tuple(tuple(Scalar(("multiply", factor, to_expression(entry))) for entry in row) for row in matrix.rows)
    )


def _dot(row: tuple[Scalar, ...], column: tuple[Scalar, ...]) -> Expression:
    terms = [("multiply", to_expression(a), to_expression(b)) for a, b in zip(row, column, strict=True)]
    return terms[0] if len(terms) == 1 else ("add", *terms)
