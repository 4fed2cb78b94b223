"""The reader of sums, products over an index, integrals and limits."""

from .cursor import Cursor
from .values import Expression, number, operations


def read_series(reader: Cursor, name: str) -> Expression:
    r"""Reads what follows `\sum`, `\prod`, `\int` or `\lim`.

    A sum or product with a finite upper limit is computed; the others equal only those with the same limits and body.
    """
    if name == "int":
        return _read_integral(reader)
    if name == "lim":
        index, target = _read_below(reader, "→")
        return ("series", "lim", index, target, _read_body(reader))
    index, low = _read_below(reader, "=")
    reader.expect("^")
    high = reader.read_argument()
    body = _read_body(reader)
    if "infinity" in operations(high):
        return ("series", name, index, low, high, body)
    return ("sum" if name == "sum" else "product", index, low, high, body)


def _read_below(reader: Cursor, sign: str) -> tuple[str, Expression]:
    """Reads `_{k=0}`: the index and its first value."""
    reader.expect("_")
    reader.expect("{")
    token = reader.peek()
    if token.kind != "letter":
        reader.expect("index")
    reader.at += 1
    reader.expect(sign)
    value = reader.read_sum()
    if reader.sees("^") or reader.sees("+", "-"):  # from one side
        reader.expect("}")
    reader.expect("}")
    return token.text, value


def _read_body(reader: Cursor) -> Expression:
    with reader.nest():
        return reader._read_product(None)


def _read_integral(reader: Cursor) -> Expression:
    reader.expect("_")
    low = reader._read_signed() if reader.sees("-") else reader._read_digit()
    reader.expect("^")
    high = reader._read_signed() if reader.sees("-") else reader._read_digit()
    position = reader.at
    while position + 1 < len(reader.tokens):
        first, second = reader.tokens[position : position + 2]
        if first.kind == "letter" and first.text == "d" and second.kind == "letter":
            break
        position += 1
    else:
        reader.expect("dx")
    inner = type(reader)(reader.tokens[reader.at : position], reader.plus_minus, reader.depth + 1)
    body = inner.read_sum() if inner.tokens else number(1)
    if inner.at != len(inner.tokens):
        inner.expect("end")
    reader.at = position + 2
    return ("series", "int", second.text, low, high, body)
