"""The values of texts, brackets and determinants from what is inside them."""

from .cursor import Unreadable
from .tokens import Token
from .values import Builder, Expression, Group, Text, Value

_PUNCTUATION = (".", ",", ";", "!", "?", ":")


def to_text(tokens: list[Token]) -> Text:
    if len(tokens) > 1 and tokens[-1].kind == "symbol" and tokens[-1].text in _PUNCTUATION:
        tokens = tokens[:-1]
    is_words = all(token.kind in ("word", "letter", "number") or token.text in ("-", "'", ",", ".") for token in tokens)
    is_words = is_words and any(token.kind == "word" for token in tokens)
    return Text(tuple(fold(token) for token in tokens), is_words)


def fold(token: Token) -> str:
    return token.text.casefold() if token.kind == "word" else token.text


def group(items: list[Value]) -> Value:
    return items[0] if len(items) == 1 else Group("", tuple(items), "")


def close(opening: str, inner: Value, closing: str) -> Value:
    """Returns the value of brackets around `inner`."""
    several = isinstance(inner, Group) and not inner.opening
    if isinstance(inner, Builder):
        return inner
    if opening == "⦃" or (opening == "{" and several):
        return Group("{", inner.items if several else (inner,), "}")
    if several:
        opening, closing = opening.replace("]", "(").replace("⟨", "("), closing.replace("[", ")").replace("⟩", ")")
        return Group(opening, inner.items, closing)
    if (opening, closing) not in (("(", ")"), ("[", "]"), ("{", "}")):
        raise Unreadable(f"{opening} and {closing} stand around one value: an interval needs two")
    return inner


def determinant(rows: list[list[Expression]]) -> Expression:
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, entry in enumerate(rows[0]):
        minor = determinant([row[:column] + row[column + 1 :] for row in rows[1:]])
        term = ("multiply", entry, minor)
        terms.append(("negative", term) if column % 2 else term)
    return ("add", *terms)
