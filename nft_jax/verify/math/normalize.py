"""Brings the many ways to write an answer into one: spaces, commands of appearance, units, separators.

The result is text for `reader.parse`. Braces of sets are `⦃ ⦄`, to differ from the braces with which LaTeX groups. A
name that stands for one variable is `⟦name⟧`.
"""

import re

# Symbols as LaTeX or ASCII; they are replaced first.
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "∕": "/",
    "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ",
    "β": r"\beta ", "²": "^2", "³": "^3", "⁴": "^4", "½": r"\frac12 ", "¼": r"\frac14 ", "¾": r"\frac34 ",
    "°": r"^\circ ", "％": "%", "，": ",", "：": ":", "；": ";", "（": "(", "）": ")", "＝": "=", "′": "'",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ", "\u200b": "", "€": "", "£": "", "¥": "", "₹": "",
    "**": "^", "~": " ", "\t": " ", "\r": " ", "\n": " ", "`": "", "⦃": " ", "⦄": " ", "⟦": " ", "⟧": " ",
}  # fmt: skip
_SYMBOL = re.compile("|".join(map(re.escape, sorted(_SYMBOLS, key=len, reverse=True))))

_COMMANDS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom", "tbinom": r"\binom",
    "leq": "≤", "le": "≤", "leqslant": "≤", "geq": "≥", "ge": "≥", "geqslant": "≥", "lt": "<", "gt": ">",
    "ne": "≠", "neq": "≠", "approx": "≈", "simeq": "≈", "in": "∈", "colon": ":", "div": "/", "cup": "∪", "pm": "±",
    "cdot": "*", "times": "*", "ast": "*", "lbrace": "⦃", "rbrace": "⦄", "lbrack": "[", "rbrack": "]",
    "vert": "|", "lvert": "|", "rvert": "|", "mid": "|", "infin": r"\infty", "land": ",", "lor": ",",
    "degree": "°", "circ": "°", "emptyset": "⦃⦄", "varnothing": "⦃⦄",
}  # fmt: skip
_SILENT = re.compile(
    "left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg|displaystyle|textstyle|limits|nolimits|"
    "boldsymbol|unit|space|phantom|hspace|vspace|ldotp"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?\s*")
_SPACING = re.compile(r"\\[,;:! ]\s*")
_ESCAPED = str.maketrans({"$": None, "\x00": None})

_FONT = r"text|textbf|textit|textrm|textnormal|texttt|textsf|mbox|hbox|fbox|mathrm|mathbf|mathit|mathsf|operatorname|rm"
_TEXT = re.compile(rf"\\(?P<font>{_FONT})\s*\{{(?P<words>[^{{}}]*)\}}(?P<power>\s*\^\s*(?:\d|\{{\d\}}))?")
_AFTER_UNIT = re.compile(r"\s*\.?\s*(?:$|[,;=)\]]|\\)")

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]|\.\d+,)")
_TIGHT_THOUSANDS = re.compile(r"(?<=\d)(?:,\\!\s*|\{,\}|\\,|\\!)(?=\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MIXED = re.compile(r"(?<![\d.}])(\d+)\s+(\d+)/(\d+)(?!\d)")
_PERCENT = re.compile(r"\\?%|(?<![A-Za-z])(?:percent(?:age)?|pct)(?![A-Za-z])")
_DEGREE = re.compile(r"\^\s*(?:\{\s*°\s*\}|°)|°")
_CONNECTIVE = re.compile(r"\s*,?(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_UNITS = (
    "mm|cm|dm|km|nm|kg|mg|lb|lbs|oz|ml|mL|ft|yd|mi|in|min|sec|hr|hrs|mph|kph|rpm|deg|dollars?|cents?|"
    "inch(?:es)?|feet|foot|degrees?|meters?|metres?|units?|hours?|minutes?|seconds?|days?|weeks?|months?|"
    "years?|miles?|grams?|liters?|litres?|square|cubic|sq|cu|gallons?|pounds?|yuan|radians?|rad|[a-z]{4,}"
)
# Bare words after a number: `5 cm^2`, `12 students per day`. One letter may be a variable and is left alone.
_BARE_UNIT = re.compile(
    rf"(?<=[\d)}}%])\s*(?<![\\A-Za-z])(?:{_UNITS})(?![A-Za-z(\\])[A-Za-z\s/.-]*(?:\^\s*(?:\d|\{{\d\}}))?\s*$"
)
_NOT_UNITS = re.compile(
    r"(?:sqrt|sinh?|cosh?|tanh?|cot|sec|csc|log|exp|pi|infinity|inf|union|theta|alpha|beta)(?![a-z])"
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(?<=\d)\s*(?P<scale>{'|'.join(_SCALES)})s?(?![A-Za-z])")
# `4.5e33`, but not e to a power; `52_8`, a number in another base; `3./2`.
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?)[eE]([-+]?\d{1,4})(?![\w.])")
_BASE = re.compile(r"(-?)\(?([0-9A-F]+)\)?\s*_\s*(?:\{\s*(\d{1,2})\s*\}|(\d{1,2}))")
_BARE_POINT = re.compile(r"(?<=\d)\.(?=\s*/)")
_CHOICE = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")


def normalize(text: str) -> str:
    """Returns the answer in plain form. Nothing is evaluated; the time is linear in the length of the text."""
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match.group()], text.strip("* "))
    text = _TIGHT_THOUSANDS.sub("", text.replace(r"\$", "").translate(_ESCAPED))
    text = _single_backslashes(text).replace(r"\{", "⦃").replace(r"\}", "⦄")
    text = re.sub(
        r"\\(?:begin|end)\{(?:align\*?|aligned|equation\*?|gather\*?)\}|\\[()]|\\\[(?!\d)|\\\](?!\d)", " ", text
    )
    text = re.sub(r"\\q?quad", " ", text)  # often glued to the next letter
    text = _TEXT.sub(_replace_text, text)
    text = _PERCENT.sub("%", text)
    text = _COMMAND.sub(_replace_command, text)
    text = _SPACING.sub(" ", text)
    text = re.sub(r"(?<![A-Za-z])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty ", text.replace(r"\infty", "infty"))
    text = text.replace("<=", "≤").replace(">=", "≥").replace("!=", "≠").replace("==", "=").replace(":=", "=")
    text = _DEGREE.sub("", text)
    text = _SCIENTIFIC.sub(r"\1*10^{\2}", _BARE_POINT.sub("", text))
    text = _SCALE.sub(lambda match: f"*10^{_SCALES[match['scale']]} ", text)
    text = _CONNECTIVE.sub(";", text)
    text = _drop_bare_unit(text.strip().rstrip(".").strip())
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _join_thousands(text)
    if based := _BASE.fullmatch(text):
        # Its digits and its base: the problem asks for just these, and no other way of writing the number.
        return f"{based[1]}⟦{based[2]}base{based[3] or based[4]}⟧"
    choice = _CHOICE.fullmatch(text)
    return choice.group(1) if choice else text


def letters(text: str) -> str:
    """Returns the characters of words that count: not case, spaces, brackets and punctuation."""
    return re.sub(r"[^0-9a-z+\-*/^=<>:≤≥≠.%|\\]", "", _TEXT.sub(lambda match: match["words"], text).lower()).rstrip(".")


def _single_backslashes(text: str) -> str:
    r"""Returns `¶` for double backslashes, which end a row of a matrix; elsewhere a command was escaped twice."""
    if "matrix" in text:
        return text.replace("\\\\", "¶")
    return re.sub(r"\\\\(?=[A-Za-z{}!,])", lambda match: "\\", text).replace("\\\\", " ")


def _replace_text(match: re.Match) -> str:
    r"""Replaces `\text{…}`, which is the answer if it is alone, a unit after a value, and a name before a relation."""
    words = match["words"].strip()
    before, after = match.string[: match.start()].rstrip(), match.string[match.end() :]
    if words in ("and", "or", ", and", ", or"):
        return ";"
    if not before.strip("$({ ") and not after.strip("$)}. "):
        return f" {match['words']} {match['power'] or ''}"
    if words.lower() in ("percent", "pct", "percentage", "%"):
        return "%"
    # Upright e, i and single letters are symbols, unless they follow a number as a unit does: `5 \text{ m}`.
    upright = match["font"].startswith(("math", "rm", "operator"))
    if len(words) == 1 and (upright or not match["words"].startswith(" ")) and words in "eiEI":
        return f" {words} {match['power'] or ''}"
    if words in _SCALES:
        return f" {words} "
    if before and before[-1] not in r"+-*/^=<>({[_,;|&⦃" and _AFTER_UNIT.match(after):
        return " "
    if match["font"] == "operatorname" or re.fullmatch(r"[a-z]{2,6}", words) and after.lstrip().startswith(("(", "{")):
        return f" {words} {match['power'] or ''}"
    name = re.sub(r"[^0-9A-Za-z]", "", words)
    return (f"⟦{name}⟧" if len(name) > 1 else f" {name} ") + (match["power"] or "")


def _replace_command(match: re.Match) -> str:
    name = match.group(1)
    if _SILENT.fullmatch(name):
        return " "
    replacement = _COMMANDS.get(name)
    return f"\\{name} " if replacement is None else f"{replacement} "


def _drop_bare_unit(text: str) -> str:
    """Returns the text without the words after a number, unless they are functions or constants."""
    match = _BARE_UNIT.search(text)
    if match is None or _NOT_UNITS.match(match.group().strip()):
        return text
    return text[: match.start()].rstrip()


def _join_thousands(text: str) -> str:
    """Joins the digits of `1,234` outside brackets and of `1 234` alone; inside brackets a comma separates."""
    if _SPACED_THOUSANDS.fullmatch(text):
        return text.replace(" ", "")
    if not any(bracket in text for bracket in "([⦃{"):
        return _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    return text
