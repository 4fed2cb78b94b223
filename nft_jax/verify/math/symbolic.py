"""The last resort, math-verify's LaTeX grammar and SymPy, for what `reader.py` does not read: integrals, sums, limits.

Both are imported when they are first needed (1.5 s). Of math-verify only the LaTeX grammar is used, an ANTLR parser
that builds SymPy objects. Its reading of plain expressions goes through `sympy.parse_expr`, which is Python's `eval`;
its time-outs are signals, which fail in threads. The pool's parent ends what takes too long.
"""

import re
from functools import lru_cache
from typing import Any

LENGTH_LIMIT = 400
DEPTH_LIMIT = 8
NUMBER_LIMIT = 1000  # of a number in a text with an exponent, a factorial or a sum

# No quotes, no two underscores, no attributes or calls of Python: nothing that means something to `eval`, in case a
# library further down ever uses it. The commands are those of calculus and linear algebra.
_CHARACTERS = re.compile(r"[0-9A-Za-z\\{}()\[\]+\-*/^_=<>.,;|!&% ]*")
_SUSPICIOUS = re.compile(
    r"__|[A-Za-z]\s*\.\s*[A-Za-z]|\^\s*\{[^{}]*\^|\^\s*(?:\\?[A-Za-z]+|\d+)\s*\^|!\s*!|\)\s*!|\}\s*!"
)
_LONG_WORD = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{4,}")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ALLOWED = re.compile(
    "frac|sqrt|int|iint|sum|prod|lim|infty|to|rightarrow|left|right|cdot|times|pm|sin|cos|tan|cot|sec|csc|"
    "arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|pi|theta|alpha|beta|gamma|delta|epsilon|lambda|mu|nu|rho|"
    "sigma|tau|phi|omega|det|begin|end|le|ge|leq|geq|ne|neq|lt|gt|cup|cap|in|setminus|binom|overline|bar|vec|"
    "mathbf|mathbb|text|mathrm|lfloor|rfloor|lceil|rceil|gcd|lcm|min|max|bmod|pmod|mod|circ|emptyset|partial|"
    "langle|rangle"
)
_CALCULUS = {"int", "iint", "sum", "prod", "lim"}
# What `reader.py` does not know. SymPy would read a text without any of these no better.
_BEYOND = _CALCULUS | {"det", "begin", "gcd", "lcm", "max", "min", "bmod", "pmod", "mod", "cap", "setminus", "mathbb"}
_WORDS = {"matrix", "pmatrix", "bmatrix", "vmatrix", "smallmatrix"}
_DIGITS = 50


def preload() -> None:
    """Imports what `compare` needs, and makes the tables of the grammar."""
    _read("1")


def compare(reference: str, given: str) -> bool | None:
    """Returns whether two answers in LaTeX are the same; None if one is refused or not read, or SymPy cannot decide."""
    if not (is_harmless(reference) and is_harmless(given)) or not _BEYOND & {*_COMMAND.findall(reference + given)}:
        return None
    left, right = _read(reference), _read(given)
    if left is None or right is None:
        return None
    return _compare_objects(left, right)


def is_readable(text: str) -> bool:
    """Returns whether the grammar reads an answer."""
    return is_harmless(text) and bool(_BEYOND & {*_COMMAND.findall(text)}) and _read(text) is not None


def is_harmless(text: str) -> bool:
    """Returns whether SymPy may get a text: it is short, shallow, without large powers, and nothing but mathematics."""
    if len(text) > LENGTH_LIMIT or not _CHARACTERS.fullmatch(text) or _SUSPICIOUS.search(text):
        return False
    commands = _COMMAND.findall(text)
    if not all(map(_ALLOWED.fullmatch, commands)) or sum(command in _CALCULUS for command in commands) > 1:
        return False
    if any(word not in _WORDS for word in _LONG_WORD.findall(text)):
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    numbers = [int(digits[:20]) for digits in re.findall(r"\d+", text)]
    growing = re.search(r"[\^!]|\\(?:sum|prod|binom)", text) is not None
    return deepest <= DEPTH_LIMIT and not (growing and any(number > NUMBER_LIMIT for number in numbers))


@lru_cache(maxsize=256)
def _read(text: str) -> Any | None:
    """Returns a SymPy object; None if the grammar does not read the text."""
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from math_verify.grader import should_treat_as_complex

    try:
        return latex2sympy(text, is_real=not should_treat_as_complex(text), normalization_config=None)
    except Exception:  # it raises whatever happens inside ANTLR and SymPy
        return None


def _compare_objects(reference: Any, given: Any) -> bool | None:
    """Compares scalars by their difference, relations by their text, and the rest by math-verify.

    math-verify compares the solutions of relations, so it takes `x^2=-1` for `x^2=-2`.
    """
    import sympy
    from math_verify.grader import is_relation, sympy_expr_eq

    try:
        if is_relation(reference) or is_relation(given):
            return bool(reference == given)
        if isinstance(reference, sympy.Expr) and isinstance(given, sympy.Expr):
            return _compare_scalars(reference, given)
        return bool(sympy_expr_eq(reference, given, 6, _DIGITS))
    except Exception:
        return None


def _compare_scalars(reference: Any, given: Any) -> bool:
    """Returns whether the difference is 0: numerically at one point, and then by simplification."""
    import sympy

    difference = (reference - given).doit()
    names = sorted(difference.free_symbols, key=str)
    point = {name: sympy.Rational(7 * index + 4, 5 * index + 3) for index, name in enumerate(names)}
    value = difference.subs(point).evalf(_DIGITS)
    if value.is_number and abs(value) > sympy.Float(10) ** (10 - _DIGITS):
        return False
    return sympy.simplify(difference) == 0
