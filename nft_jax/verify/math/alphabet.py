"""The alphabet of answers: LaTeX or ASCII for Unicode symbols, and one name for the commands that mean the same."""

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
    "lor": "or", "vee": "or", "to": "→", "rightarrow": "→", "mapsto": "↦", "infin": "infty", "doteq": "=",
    **dict.fromkeys(("dots", "cdots", "dotsc", "dotsb"), "ldots"), "lg": "log", "varnothing": "emptyset",
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac"), "frac"), "percent": "%",
    **dict.fromkeys(("dbinom", "tbinom"), "binom"), "arcsin": "asin", "arccos": "acos", "arctan": "atan", "and": "and",
}  # fmt: skip
