"""From the text of an answer to its typed value. What the grammar does not cover is text, kept whole."""

import itertools
import re
from functools import lru_cache

from .answer import AnswerReader
from .cursor import END, Unreadable
from .identity import variables
from .structures import fold, sides_of, to_text
from .tokens import Token, tokenize
from .values import Choice, Conditional, Text, Value
from .words import HEDGE, number_in_words

LENGTH_LIMIT = 2000  # characters of an answer

_LETTERS = "ABCDEFGHIJ"
_CONDITIONS = {"for", "where", "with", "such", "given"}
_CONDITION_WORDS = {
    "for", "where", "with", "such", "that", "given", "all", "any", "every", "each", "some", "real", "positive",
    "negative", "nonnegative", "non", "nonzero", "integer", "integers", "number", "numbers", "natural", "is", "are",
    "an", "a", "constant", "constants", "arbitrary", "and", "the", "prime", "primes", "odd", "even", "polynomial",
}  # fmt: skip
_ABOUT = {"about", "approximately", "roughly", "around", "approx"}
_REASONS = {"since", "because"}
_EMPHASIS = {"only", "exactly", "precisely", "alone"}  # of an answer that is complete anyway
_CHOICE = re.compile(
    rf"(?P<name>(?i:option|choice|answer|case)(?: is| :)? )?"
    rf"(?:\( (?P<bracket>[{_LETTERS}]) \)|(?P<marked>[{_LETTERS}]) [).:]|(?(name)(?P<named>[{_LETTERS}])))(?: |$)"
)
_DOMAIN = re.compile(  # "k ∈ ℤ", "for any integer k", "where c is a constant"
    r"(?:[,;(]|, where|for|where|with)(?: (?:any|all|every|each|some|arbitrary))*"
    r" (?:(?P<kind>integers?|(?:real )?(?:numbers?|constants?)|reals?) (?P<last>[A-Za-z])"
    r"|(?P<first>[A-Za-z]) (?:∈|is(?: an?| any)?(?: arbitrary)?) "
    r"(?P<set>ℤ|ℕ|ℝ|Z|N|R|integer|(?:real )?(?:number|constant))(?: \^)?(?: \{)?(?: [*+])?(?: \})?)(?: \))?"
)
_DATE = re.compile(r"\d{1,2}/\d{1,2}/\d{4}|\d{4}-\d\d-\d\d")


@lru_cache(maxsize=4096)
def read(text: str) -> Value:
    """Returns the value of an answer.

    Raises:
      Unreadable: for a text that is too long, and for one without any token.
    """
    if len(text) > LENGTH_LIMIT:
        raise Unreadable(f"it has {len(text)} characters; at most {LENGTH_LIMIT} are read")
    tokens = _strip(tokenize(text))
    if not tokens:
        raise Unreadable("it is empty")
    try:
        return _read_whole(tokens)
    except (Unreadable, RecursionError):
        return to_text(tokens)


def why_unreadable(text: str) -> str | None:
    """Returns why an answer is read as nothing but text though it has formulas; None otherwise."""
    tokens = _strip(tokenize(text))
    try:
        _read_whole(tokens)
    except (Unreadable, RecursionError) as error:
        return None if to_text(tokens).is_words else str(error)
    return None


def _strip(tokens: tuple[Token, ...]) -> list[Token]:
    """Returns the tokens without punctuation behind the answer, and without `=` or "about" before it."""
    tokens = list(tokens)
    while tokens and tokens[-1].kind == "symbol" and tokens[-1].text in (".", ",", ";"):
        tokens.pop()
    first, second = (*tokens, END, END)[:2]
    is_sign = first.kind == "symbol" and first.text in "=≈" and second is not END
    return tokens[1:] if is_sign or first.text.lower() in _ABOUT and second.kind == "number" else tokens


def _read_whole(tokens: list[Token]) -> Value:
    tokens = _join_bases(_strip_words(tokens))
    if (choice := _read_choice(tokens)) is not None:
        return choice
    if (number_text := _join_thousands(tokens)) is not None:
        tokens = number_text
    if _DATE.fullmatch("".join(token.text for token in tokens)):
        raise Unreadable("it is a date")
    value, condition = _split_condition(tokens)
    read_value = AnswerReader(value).read_all()
    is_remark = condition[:1] == ("if",) and not any(map(variables, sides_of(read_value)))  # x = 5 (x > 0)
    return Conditional(read_value, condition) if condition and not is_remark else read_value


def _strip_words(tokens: list[Token]) -> list[Token]:
    """Returns the tokens without "only" and "exactly" at an end, and `the answer = 5` for "The answer is 5"."""
    texts = [token.text.lower() for token in tokens]
    start = texts[0] in _EMPHASIS and len(tokens) > 1 and texts[1] not in ("if", "when")
    tokens = tokens[start : len(tokens) - (texts[-1] in _EMPHASIS and len(tokens) > 1)]
    words = next((at for at, token in enumerate(tokens) if token.kind != "word" or token.text in ("is", "are")), 0)
    sign, value = (*tokens[words : words + 2], END, END)[:2]
    if words and sign.text in ("is", "are", ":") and value.kind not in ("word", "end"):
        return [*tokens[:words], Token("symbol", "="), *tokens[words + 1 :]]
    return tokens


def _join_bases(tokens: list[Token]) -> list[Token]:
    """Returns the tokens with `144_8` for "144 base 8", "144 (base 8)" and "144 in base eight"."""
    texts = [token.text.lower() for token in tokens]
    if "base" not in texts:
        return tokens
    at = texts.index("base")
    after = at + 2 + (texts[at + 1 : at + 2] == ["-"])
    start = at - (texts[at - 1] == "in")
    start -= (in_brackets := start > 0 and tokens[start - 1].text == "(")
    base = number_in_words(texts[after - 1 : after]) or (tokens[after - 1].text if after <= len(tokens) else "")
    if not start or tokens[start - 1].kind != "number" or not str(base).isdigit():
        return tokens
    if in_brackets and texts[after : after + 1] != [")"]:
        return tokens
    joined = [*tokens[:start], Token("symbol", "_"), Token("number", str(base))]
    return joined + _join_bases(tokens[after + in_brackets :])


def _join_thousands(tokens: list[Token]) -> list[Token] | None:
    """Returns the tokens with `1,234` and `1 234` outside brackets as one number; None if there is no such number."""
    if any(token.kind == "symbol" and token.text in "([⦃⟨{" for token in tokens):
        return None
    joined, at = [], 0
    while at < len(tokens):
        run = [tokens[at]]
        position = at + 1
        if tokens[at].kind == "number" and re.fullmatch(r"\d{1,3}", tokens[at].text):
            while position < len(tokens):
                comma = tokens[position].text == "," and not tokens[position].gap
                group = tokens[position + comma] if position + comma < len(tokens) else END
                separated = comma and not group.gap or not comma and group.gap
                if not separated or not re.fullmatch(r"\d{3}(?:\.\d+)?", group.text) or group.kind != "number":
                    break
                run.append(group)
                position += 1 + comma
        more = tokens[position] if position < len(tokens) else END
        following = tokens[position + 1] if position + 1 < len(tokens) else END
        is_list = more.text == "," and not following.gap and following.kind == "number" and not more.gap
        is_list = is_list or at > 1 and tokens[at - 1].text == "," and not tokens[at].gap  # 27,54,108
        if len(run) > 1 and not is_list:
            joined.append(run[0]._replace(text="".join(token.text for token in run)))
            at = position
        else:
            joined.append(tokens[at])
            at += 1
    return joined if len(joined) != len(tokens) else None


def _split_condition(tokens: list[Token]) -> tuple[list[Token], tuple[str, ...]]:
    """Returns the tokens before the words that restrict the answer, and these: "for all k", "where k ≥ 1".

    A bracket with an inequality is a condition too. A reason ("since x > 0") restricts nothing, and brackets around
    another form of the value are dropped.
    """
    depth = 0
    for position, token in enumerate(tokens):
        if token.kind == "symbol":
            depth += token.text in "([⦃{" or token.text.startswith("begin ")
            depth -= token.text in ")]⦄}" or token.text.startswith("end ")
        if not position or depth != (token.text == "(") or tokens[position - 1].text.lower() == "except":
            continue
        more = tokens[position + 1].text.lower() if position + 1 < len(tokens) else ""
        levels = itertools.accumulate((part.text == "(") - (part.text == ")") for part in tokens[position:-1])
        is_bracket = token.text == "(" and tokens[-1].text == ")" and all(levels)
        if is_bracket and more in ("or", "≈", "="):  # 12π (≈ 37.7)
            return [*tokens[:position], *tokens[position + 1 : -1]], ()
        if token.text.lower() in _REASONS or is_bracket and more in _REASONS:
            return _strip(tuple(tokens[:position])), ()
        is_short = token.text in ",;(" and len(tokens) < position + 8
        if not (is_short or is_bracket or token.text.lower() in _CONDITIONS):
            continue
        value, condition = _strip(tuple(tokens[:position])), tuple(map(fold, tokens[position:]))
        if domain := _DOMAIN.fullmatch(" ".join(condition)):
            kind = domain["set"] or domain["kind"]
            name = "ℕ" if kind in ("ℕ", "N") else "ℤ" if kind[0] in "ℤZi" else "ℝ"
            return value, ("for", domain["first"] or domain["last"], "∈", name)
        before = tokens[position - 1]
        is_factor = before.kind == "letter" and not (token.gap and before.text.islower())  # P(X > 2)
        if is_bracket and not is_factor and any(part.text in "<>≤≥≠∈" for part in tokens[position:]):
            return _strip(tuple(tokens[:position])), ("if", *map(fold, tokens[position + 1 : -1]))
        words = {part.text.lower() for part in tokens[position:] if part.kind in ("word", "command")}
        if token.kind == "word" and words <= _CONDITION_WORDS:
            return value, condition
    return tokens, ()


def _read_choice(tokens: list[Token]) -> Value | None:
    """Returns a choice: `(C)`, `C.`, "option C", `(C) 5`; None for anything else."""
    kept = [(position, token.text) for position, token in enumerate(tokens[:12]) if token.text not in "{}"]
    match = _CHOICE.match(" ".join(text for _, text in kept))
    letter = match and (match["bracket"] or match["marked"] or match["named"])
    if not letter:
        return None
    position = kept[len(match.group().split()) - 1][0] + 1
    tail = list(itertools.dropwhile(lambda token: token.text == "}", tokens[position:]))
    if not tail:
        return Choice(letter, Text((), False))
    hedges = any(a.text in _LETTERS and b.text in (")", ".") for a, b in itertools.pairwise(tail))
    has_gap = tail[0].gap or tokens[len(tokens) - len(tail) - 1].gap
    is_marked = bool(match["bracket"] or match["marked"])
    if not (is_marked and has_gap) or hedges or tail[0].text in "(,/=":
        return None
    if HEDGE.search(" ".join(token.text for token in tail)) or {"or", "and", "else"} & {token.text for token in tail}:
        return None
    try:
        return Choice(letter, AnswerReader(_strip(tuple(tail))).read_all())
    except Unreadable:
        return Choice(letter, to_text(tail))
