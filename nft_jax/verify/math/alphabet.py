"""The alphabet of answers: LaTeX or ASCII for Unicode symbols, and one name for the commands that mean the same."""

import html
import re
import unicodedata

_CHARACTERS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "•": "*",
    "÷": "/", "∕": "/", "⁄": "/", "√": r"\sqrt ", "∛": r"\cbrt ", "∞": r"\infty ", "∅": r"\emptyset ",
    "≦": "≤", "≧": "≥", "⩽": "≤", "⩾": "≥", "≃": "≈", "∶": ":", "∣": "|", "∖": "∖", "′": "'", "’": "'", "‘": "'",
    "″": "''", "⟨": "⟨", "〈": "⟨", "⟩": "⟩", "〉": "⟩", "∧": r"\land ", "∨": r"\lor ", "…": r"\ldots ",
    "⋯": r"\ldots ",
    "º": "° ", "°": "° ", "。": ".", "、": ",", "“": "", "”": "", '"': "", "`": "", "\u200b": "", "\u2061": "",
    "\ufeff": "",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "∠": r"\angle ", "△": r"\triangle ", "µ": "μ", "Ω": "Ω", "％": "%", "℃": "°C", "℉": "°F",
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000\t\r\n", " "),
}  # fmt: skip
TABLE = str.maketrans(_CHARACTERS | {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)} | {"＂": "", "％": "%"})
_LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi omicron pi rho sigma tau upsilon phi chi "
    "psi omega"
)
GREEK = {
    unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}"): name.replace("amda", "ambda")
    if case == "SMALL"
    else name.capitalize().replace("amda", "ambda")
    for case in ("SMALL", "CAPITAL")
    for name in _LETTERS.split()
}
GREEK_COMMANDS = {*GREEK.values(), *(f"var{name}" for name in GREEK.values()), "ell", "hbar"}
HIGH = {"⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9",
         "⁺": "+", "⁻": "-", "⁽": "(", "⁾": ")", "ⁿ": "n", "ⁱ": "i"}  # fmt: skip
LOW = {**{chr(0x2080 + digit): str(digit) for digit in range(10)}, "ₙ": "n", "ₖ": "k", "ᵢ": "i", "ₓ": "x", "₊": "+",
        "₋": "-"}  # fmt: skip
HIGH_RUN, LOW_RUN = (re.compile("[" + "".join(map(re.escape, table)) + "]+") for table in (HIGH, LOW))
SMALL_FRACTION = re.compile(f"({HIGH_RUN.pattern})[⁄/]({LOW_RUN.pattern})")

SYNONYMS = {
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), "≤"), **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"), "lt": "<", "gt": ">", **dict.fromkeys(("approx", "simeq", "sim"), "≈"),
    "in": "∈", "notin": "∉", "cup": "∪", "cap": "∩", "setminus": "∖", "backslash": "∖", "smallsetminus": "∖",
    "cdot": "*", "times": "*", "ast": "*", "bullet": "*", "div": "/", "pm": "±", "mp": "∓", "colon": ":", "equiv": "≡",
    "lbrace": "⦃", "rbrace": "⦄", "lbrack": "[", "rbrack": "]", "langle": "⟨", "rangle": "⟩", "cong": "≅",
    **dict.fromkeys(("vert", "lvert", "rvert", "mid"), "|"), "prime": "'", "land": "and", "wedge": "and",
    "lor": "or", "vee": "or", "lnot": "neg",
   
    "bar": "overline", "widehat": "hat", "widetilde": "tilde", "overrightarrow": "vec", "Re": "ℝ",
    "to": "→", "rightarrow": "→", "mapsto": "↦", "infin": "infty", "doteq": "=",
    **dict.fromkeys(("dots", "cdots", "dotsc", "dotsb"), "ldots"), "lg": "log", "varnothing": "emptyset",
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac"), "frac"), "percent": "%",
    **dict.fromkeys(("dbinom", "tbinom"), "binom"), "arcsin": "asin", "arccos": "acos", "arctan": "atan", "and": "and",
}  # fmt: skip

DECORATION = (
    "left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|boldsymbol|bm|pmb|large|Large|"
    "LARGE|huge|Huge|small|normalsize|tiny|underline|ensuremath|unit|ldotp|centering|bf|it|rm|boxed|fbox|framebox|"
    "mathstrut|strut|mathbf|mathit|textbf|emph|textit|mathnormal|bold|tt|sf|textsf|mathsf|texttt|mathtt|newline|allowbreak|"
    "nonumber|notag|hfill|par|quad|qquad|space|enspace|thinspace|negthinspace"
)
_ELEMENT = re.compile(r"<(sup|sub|b|i|u|p|em|strong|span)>(.*?)</\1>", re.S)  # of HTML
_ENTITY = re.compile(r"&[A-Za-z]{2,8}\d{0,2};")
_MARKDOWN = re.compile(r"\s*(\*\*|__|\*|_)(?![\s*_])([^*_]+)(?<!\s)\1[\s.]*")
_DEGREE = re.compile(
    r"(?:\{\s*\})?\^\s*(?:\{\s*(?:\\circ|°|\\degrees?)\s*\}|\\circ(?![A-Za-z])|°|\\degrees?(?![A-Za-z]))|\\degrees?(?![A-Za-z])"
)
_PRIMES = re.compile(r"\^\s*(?:\{\s*(?:\\prime\s*)+\}|\\prime(?![A-Za-z]))")
_SYSTEM = re.compile(  # rows behind one large brace, or alone
    r"(\\left\s*\\(?:\{|lbrace)\s*)?\\begin\s*\{(array|matrix|(?:align|gather|split)(?:ed)?\*?)\}(?:\s*\{[clr| ]*\})?"
    r"(.*?)\\end\s*\{\2\}(?(1)\s*\\right\.)",
    re.S,
)
_MICRO = re.compile(r"(?:\\mu\s*\\(?:text|mathrm)\s*\{|\\(?:text|mathrm)\s*\{\s*\\mu)\s*(?=[A-Za-z]{1,3}\})")
_ROW_HEIGHT = re.compile(r"\\\\\s*\[-?[\d.]+\s*[a-z]{2}\]")
_DETERMINANT = re.compile(
    r"(?:\\left\s*)?\|\s*(\\begin\{)(?:array\}(?:\{[clr|]*\})?|matrix\})(.*?\\end\{)\w+(\})\s*(?:\\right\s*)?\|", re.S
)
_WHOLE = re.compile(  # marks the whole answer
    rf"\s*\\(?:(?:text)?color\s*\{{[^{{}}]*\}}|{DECORATION})\s*\{{([^{{}}]*)\}}(?=[\s.]*$)"
)
_ORDINAL = re.compile(
    r"(?<=\d)(?:\s*-\s*|\^\s*)?(?:\\(?:text|mathrm|textsuperscript)\s*)?(?:\{\s*(?:\\(?:text|mathrm)\s*\{\s*)?)?"
    r"(?:st|nd|rd|th)(?:\s*\}){0,2}(?![A-Za-z])"
)


def clean(text: str) -> str:
    """Returns the text with LaTeX or ASCII for Unicode symbols, digits, HTML and Markdown."""
    if "</" in text:
        text = _ELEMENT.sub(lambda m: {"sup": "^{%s}", "sub": "_{%s}"}.get(m[1], "%s") % m[2], text)
    if ";" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
    text = mark[2] if (mark := _MARKDOWN.fullmatch(text)) else text
    if not text.isascii():
        text = SMALL_FRACTION.sub(lambda m: rf"\frac{{{_plain(m[1], HIGH)}}}{{{_plain(m[2], LOW)}}}", text)
        text = HIGH_RUN.sub(lambda m: f"^{{{_plain(m.group(), HIGH)}}}", text)
        text = LOW_RUN.sub(lambda m: f"_{{{_plain(m.group(), LOW)}}}", text)
        text = "".join(map(_replace_character, unicodedata.normalize("NFC", text.translate(TABLE))))
    text = text.translate({9: " ", 10: " ", 13: " ", 34: None, 96: None}).replace("...", r"\ldots ")
    if r"\begin" in text:
        text = _SYSTEM.sub(_to_cases, text)
    if r"{\rm" in text:
        text = re.sub(r"\{\\rm\s+([^{}]*)\}", r"\\mathrm{\1}", text)
    text = text.replace("\\'", "'").replace("{}_", "_").replace("{}^", "^")
    text = _WHOLE.sub(r"\1", text, count=1) if "{" in text else text
    if r"\AA" in text:
        text = re.sub(r"\\AA(?![A-Za-z])", "Å", text)
    if r"\mu" in text:
        text = _MICRO.sub(r"\\text{u", text)
    if "prime" in text:
        text = _PRIMES.sub(lambda match: "'" * match.group().count("prime"), text)
    text = re.sub(r"(?<=\d)\{:\}(?=\d)", ":", text)
    text = re.sub(r"(?<=\d)\.(?=\s*/)", "", _ORDINAL.sub("", _DEGREE.sub("° ", text)))
    if r"\begin" not in text:  # elsewhere a double backslash ends a row
        text = re.sub(r"\\\\(?=[A-Za-z{}!,])", lambda match: "\\", text)
        text = re.sub(r"\\+\s*$", " ", text.replace("\\\\", " "))
    if "|" in text and r"\begin" in text:
        text = _DETERMINANT.sub(r"\1vmatrix}\2vmatrix\3", text)
    return _ROW_HEIGHT.sub(r"\\\\ ", text)


def _to_cases(match: re.Match) -> str:
    is_system = match[1] or match[2] not in ("array", "matrix")
    return rf"\begin{{cases}}{match[3]}\end{{cases}}" if is_system else match.group()


def _plain(run: str, table: dict[str, str]) -> str:
    return "".join(map(table.__getitem__, run))


def _replace_character(character: str) -> str:
    if character.isascii():
        return character
    if character in GREEK:
        return f"\\{GREEK[character]} "
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if "\U0001d400" <= character <= "\U0001d7cb":  # an italic or bold letter for formulas
        plain = unicodedata.normalize("NFKC", character)
        return f"\\{GREEK[plain]} " if plain in GREEK else plain
    top, slash, bottom = unicodedata.normalize("NFKC", character).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}" if slash and bottom else character
