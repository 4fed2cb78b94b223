r"""The normal form of a problem's text, by which problems are compared.

It is the text without case, spaces, punctuation and the LaTeX commands that affect layout only. Operators, brackets and
other commands stay, so that `1+1` and `1-1`, or `\sin` and `\cos`, differ.
"""

import re
import unicodedata
from fractions import Fraction

_LAYOUT = re.compile(
    r"\\(?:begin|end)\s*\{[a-z*]+\}"
    r"|\\(?:left|right|[Bb]igg?[lrm]?|(?:display|text)style|(?:no)?limits|q?quad|text(?:bf|it|rm)?|math(?:rm|bf|it)"
    r"|boldsymbol|operatorname|[mh]box|rm|bf|it)(?![a-z])"
    r"|\\[,!;:>\s()\[\]\\]",
    re.IGNORECASE,
)
_SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("ldots", "cdots", "dotsc", "dotsb", "dotsm", "dotsi", "dotso"), "dots"),
    **{"leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "times": "*", "cdot": "*"},
}
_COMMAND = re.compile(r"\\([a-z]+)")
_SYMBOLS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "≤": " le ", "≥": " ge ", "≠": " ne "})
_SHORT_FRACTION = re.compile(r"(\\[dtc]?frac)\s*(\d)\s*(\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PUNCTUATION = re.compile(r"[$,;:?\"'`~&‘’“”、。]|(?<!\d)\.|\.(?!\d)")
_BRACED_ONE = re.compile(r"\{\s*([a-z]+|\d+(?:\.\d+)?)\s*\}")
_LOOSE_SPACE = re.compile(r"(?<!\d) | (?!\d)")


def normal_form(text: str) -> str:
    r"""Returns the text's normal form, equal for texts that pose the same problem.

    `Find $\left(1,000\right) x_{2}$.` and `find (1000)x_2` have the same one.
    """
    return remove_spaces(normalize(text))


def normalize(text: str) -> str:
    """Returns the normal form with spaces between words, so that words can be counted."""
    text = unicodedata.normalize("NFKC", text).translate(_SYMBOLS).lower()
    text = text.replace("{,}", ",").replace("\\!", "")
    text = _SHORT_FRACTION.sub(r"\1 \2 \3", text)
    text = _LAYOUT.sub(" ", text)
    text = _COMMAND.sub(lambda match: f" {_SYNONYMS.get(match[1], match[1])} ", text)
    text = _THOUSANDS.sub("", text)
    text = _PUNCTUATION.sub(" ", text)
    # Braces are removed before backslashes: \{x\} is a set, and {x} is x.
    text = _BRACED_ONE.sub(r" \1 ", text).replace("\\", " ")
    return " ".join(text.split())


def remove_spaces(text: str) -> str:
    """Removes the spaces of a normalized text, except those between two digits."""
    return _LOOSE_SPACE.sub("", text)


def answer_key(text: str) -> str | Fraction:
    """Returns the normal form of a reference answer, or its number: equal for answers that are the same."""
    key = normal_form(text)
    try:
        return Fraction(key)
    except (ValueError, ZeroDivisionError):
        return key
