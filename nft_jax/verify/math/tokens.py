"""The tokens of an answer: LaTeX, plain text and Unicode become one alphabet. No symbol is dropped except decoration.

Decoration is what changes only the appearance: spaces, sizes, colors, dollars, `\\left`. A gap is remembered.
"""

import re
from typing import NamedTuple

from .alphabet import DECORATION, GREEK_COMMANDS, SYNONYMS, clean
from .units import MONEY, UNITS
from .words import CONNECTIVES, FOREIGN_CONNECTIVES, SHORT_WORDS, number_in_words


class Token(NamedTuple):
    """One token.

    Attributes:
      kind: "number", "letter" (a variable), "word", "command" (a function or a structure) or "symbol".
      text: a decimal number, a name, a word in its own case, or the symbol.
      gap: whether a space stands before it.
      upright: whether it stood in `\\text` or `\\mathrm`.
    """

    kind: str
    text: str
    gap: bool = False
    upright: bool = False


_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch arcsin arccos arctan arcsinh arccosh arctanh "
    "asin acos atan asinh acosh atanh cis exp log ln lg abs floor ceil max min gcd lcm"
)
FUNCTION_NAMES = {name: name.replace("arc", "a", 1) for name in _NAMES.split()} | {
    "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "cosec": "csc", "ctg": "cot", "tg": "tan",
    "arctg": "atan", "arccot": "acot", "arcctg": "acot", "arcsec": "asec", "arccsc": "acsc",
}  # fmt: skip
_PLAIN_COMMANDS = {*FUNCTION_NAMES, "sqrt", "cbrt", "frac", "binom", "mod", "pi", "infinity", "infty", "oo", "inf"}

_TEXT_COMMANDS = "text|mbox|hbox|textrm|textnormal|textup|mathrm|operatorname|rm"
_NUMBER = (
    r"(?<![\d.])\d{1,3}(?:(?:\.\d{3}){2,}|(?:'\d{3})+)(?![\d.'])"  # 1.234.567, 1'234'567
    r"|\d+(?:(?:\\!)?(?:\{,\}|\{\\[,!]\}|,\s?\\!\s*|\\[,!]|\\text\{,\}|\\ )\d{3}(?!\d))*(?:\.\d+)?|\.\d+"
)
_DIGITS = r"(?:\d+[A-F]|[A-F][\dA-F])[\dA-F]*"  # to a base above 10
_TOKEN = re.compile(
    r"(?P<space>(?:\s|~|\\[,;:!> ]|\\q?quad(?![A-HJ-Za-z])|<br\s*/?>"
    r"|\\[hvm]space\*?\{[^{}]*\}|\\kern[\d.]+[a-z]+)+)"
    r"|\\(?:textcolor|color)\s*\{[^{}]*\}(?P<color>)"
    r"|\\[vh]?phantom\s*\{[^{}]*\}(?P<phantom>)"
    r"|\\(?:begin|end)\s*\{(?:align|equation|gather|split|center)(?:ed)?\*?\}(?P<display>)"
    r"|\\(?P<border>begin|end)\s*\{(?P<environment>[A-Za-z]+)\*?\}(?:\s*\{[clr|]*\})?"
    rf"|(?P<based>(?<![\w\\])(?:{_DIGITS}|\\(?:text|mathrm)\{{{_DIGITS}\}})_\s*(?:\{{1[1-6]\}}|1[1-6]))"
    rf"|\\(?P<font>{_TEXT_COMMANDS})\*?\s*(?=\{{)"
    r"|\\mathbb\s*(?:\{(?P<set>[RZNQC])\}|(?P<set2>[RZNQC]))"
    r"|\\(?:mathcal|mathfrak|mathscr)\s*\{(?P<script>[A-Za-z])\}"
    rf"|\\(?:(?:left|right)\s*\.|(?:{DECORATION})(?![A-Za-z])\*?)(?P<decoration>)"
    r"|(?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot)\s*(?:\{\d+\}|\d)\d*(?:\\dot\s*(?:\{\d\}|\d))?|\(\d+\)))"
    r"|(?P<scientific>(?<![\w.])\d+(?:\.\d*)?(?:[eE]|\\(?:mathrm|text)\{[eE]\})[-+]?\d{1,4}(?!\w|\.\d))"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<half>[APap]\.\s?[Mm]\.?(?![A-Za-z]))"
    r"|(?P<letters>[A-Za-z]+)"
    r"|\\(?P<command>[A-Za-z]+)"
    r"|\\(?P<escaped>[{}%#&_|\\()\[\]$])"
    r"|(?P<operator><=|>=|!=|==|:=|\*\*|->|=>)"
    r"|(?P<foreign>[^\W\d_]+)"
    r"|(?P<symbol>.)",
    re.S,
)
_ESCAPED = {"{": "⦃", "}": "⦄", "|": "‖", "\\": "¶", "(": " ", ")": " ", "[": " ", "]": " "}
_OPERATORS = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "=", ":=": "=", "**": "^", "->": "→", "=>": "⇒"}
_CONSONANTS = re.compile(r"[^aeiouAEIOU]+")
_RUNS, _USUAL = "abcdefghijklmnopqrstuvwxyz", set("abcdxyz")  # letters whose products are seldom words
_LONGEST_FIRST = "|".join(sorted(_PLAIN_COMMANDS - {"inf", "oo"}, key=len, reverse=True))
_GLUED = re.compile(rf"({_LONGEST_FIRST})([xyztnkrabRXAB]{{1,2}})")
_NOT_GLUED = {"sink", "sing", "cost", "pint", "pink", "tank", "tan", "maxx", "minx"}


def tokenize(text: str) -> tuple[Token, ...]:
    """Returns the tokens of an answer. The time is linear in the length of the text."""
    return tuple(_tokens(clean(text), upright=False))


def normalize(text: str) -> str:
    """Returns the tokens of an answer as text, without decoration."""
    return " ".join(token.text for token in tokenize(text))


def _tokens(text: str, upright: bool) -> list[Token]:
    found: list[Token] = []
    gap, at = False, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        kind, at = match.lastgroup, match.end()
        if kind in ("space", "color", "phantom", "display", "decoration"):
            gap = True if kind in ("space", "phantom", "display") or upright else gap or kind == "decoration"
            continue
        if kind == "font":
            inner, at = _argument(text, at)
            new = _tokens(inner, upright=True)
            gap = gap or inner[:1].isspace()
            if len(new) == 1 and new[0].kind == "word" and not upright:
                new = [_upright(new[0], match["font"])._replace(gap=new[0].gap)]
            at_gap = inner[-1:].isspace()
        else:
            new, at_gap = _read_token(match, kind, found, gap, upright), False
        if new:
            found.append(new[0]._replace(gap=gap or new[0].gap))
            found.extend(new[1:])
            gap = at_gap
    return found


def _argument(text: str, start: int) -> tuple[str, int]:
    """Returns what is between the braces from `start` on, and the position behind them."""
    depth = 0
    for brace in re.compile(r"(?<!\\)[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start + 1 : brace.start()], brace.end()
    return text[start + 1 :], len(text)


def _upright(token: Token, font: str) -> Token:
    """Returns a single upright letter as a variable; a name of a function as that function."""
    name = token.text
    if name in _PLAIN_COMMANDS and name not in ("in", "min"):
        return Token("command", _command_of(name))
    if len(name) == 1 and font in ("mathrm", "rm", "operatorname"):
        return Token("letter", name, upright=True)
    return Token("word", name, upright=True)


def _command_of(name: str) -> str:
    return "infty" if name in ("infinity", "oo", "inf") else FUNCTION_NAMES.get(name, name)


def _read_token(match: re.Match, kind: str, before: list[Token], gap: bool, upright: bool) -> list[Token]:
    """Returns the tokens of one match; none for decoration."""
    text = match.group()
    if kind == "number":
        return [Token("number", _digits(text))]
    if kind in ("scientific", "repeating"):
        return [Token("number", _repeating(text) if kind == "repeating" else re.sub(r"\\\w+|[{}]", "", text).lower())]
    if kind == "based":
        *_, digits, base = re.findall(r"[\dA-F]+", text)
        return [Token("letter", f"{digits} base {base}")]
    if kind == "letters":
        return [Token("word", text, upright=True)] if upright else _split_letters(text, before, gap)
    if kind == "half":
        return [Token("word", f"{text[0]}m".lower())]
    if kind == "foreign":
        return [Token("word", FOREIGN_CONNECTIVES.get(text, text))]
    if kind == "operator":
        return [Token("symbol", _OPERATORS[text])]
    if kind == "environment":
        return [Token("symbol", f"{match['border']} {match['environment']}")]
    if kind in ("set", "set2"):
        return [Token("symbol", "ℝℤℕℚℂ"["RZNQC".index(match[kind])])]
    if kind == "script":
        return [Token("letter", f"script {match['script']}")]
    if kind == "escaped":
        symbol = _ESCAPED.get(match["escaped"], match["escaped"])
        return [Token("symbol", symbol)] if symbol.strip() and not (symbol == "#" and _is_number_sign(match)) else []
    if kind == "command":
        name = match["command"]
        is_known = name in _PLAIN_COMMANDS or name in SYNONYMS or name in GREEK_COMMANDS
        return [_read_command(name)] if is_known else _split_glued(name) or [_read_command(name)]
    return [Token("symbol", text)] if text != "$" and not (text == "#" and _is_number_sign(match)) else []


def _split_glued(run: str) -> list[Token]:
    """Returns a function and its argument for `cosx`; nothing for anything else."""
    match = _GLUED.fullmatch(run)
    name = match and FUNCTION_NAMES.get(match[1], match[1])
    return [Token("command", name), *(Token("letter", letter) for letter in match[2])] if match else []


def _is_number_sign(match: re.Match) -> bool:
    return match.string[match.end() : match.end() + 1].isdigit()


def _read_command(name: str) -> Token:
    if name in SYNONYMS:
        name = SYNONYMS[name]
        if name in CONNECTIVES:
            return Token("word", name)
        return Token("command", name) if name.isalpha() and name.isascii() else Token("symbol", name)
    if name in GREEK_COMMANDS and name != "pi":
        return Token("letter", name.removeprefix("var") if name != "varepsilon" else "epsilon")
    return Token("command", FUNCTION_NAMES.get(name, name))


def _digits(text: str) -> str:
    """Returns the digits of a number without separators of thousands."""
    if text.count(".") > 1 or "'" in text:
        return re.sub(r"[.']", "", text)
    whole, point, part = text.partition(".")
    return re.sub(r"\D", "", whole) + point + part


def _repeating(text: str) -> str:
    r"""Returns `0.1(6)` for `0.1\overline{6}` and `0.1\dot{6}`; `0.(123)` for `0.\dot12\dot3`."""
    whole, _, rest = text.partition(".")
    once, *again = re.findall(r"\d+", rest) if rest[:1].isdigit() else ["", *re.findall(r"\d+", rest)]
    if r"\dot" in rest:
        first, *more = (re.sub(r"\D", "", part) for part in re.split(r"\\dot", rest))
        return f"{whole}.{first}({''.join(more)})"
    return f"{whole}.{once}({''.join(again)})"


def _split_letters(run: str, before: list[Token], gap: bool) -> list[Token]:
    """Returns letters that stand side by side as one function or word, or else as variables."""
    if run in _PLAIN_COMMANDS and not (run in ("min", "inf") and before and before[-1].kind == "number"):
        return [Token("command", _command_of(run))]
    glued = before and before[-1].kind == "number" and not gap
    signs = "".join(token.text for token in before[-2:]) if not gap else ""
    is_argument = len(before) > 1 and before[-1].text == "(" and before[-2].kind == "command"  # sin(at)
    if len(run) == 1:
        return [Token("letter", run)]
    if (
        number_in_words([run]) is not None
        or run in UNITS
        or run.lower() in MONEY
        or run.lower() in CONNECTIVES
        or (
            run in (short := run.lower(), short.capitalize(), short.upper())
            and short in SHORT_WORDS
            and not (glued or is_argument)
            and not re.search(r"[-+*/^_})]$|[\^_]\{$", signs)  # e^{-at}
        )
    ):
        return [Token("word", run)]
    if run not in _NOT_GLUED and (parts := _split_glued(run)):
        return parts
    has_name = run.isupper() or _CONSONANTS.fullmatch(run) or run.lower() in _RUNS or set(run) <= _USUAL
    is_product = len(run) == 2 or len(run) <= 4 and (glued or has_name)
    return [Token("letter", letter) for letter in run] if is_product else [Token("word", run)]
