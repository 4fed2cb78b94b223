"""The last resort, math-verify's LaTeX grammar and SymPy, for what `syntax.py` does not read: integrals, sums, limits.

Both are imported when they are first needed (1.5 s). Only its LaTeX grammar (an ANTLR parser that builds SymPy objects)
is used: math-verify's reading of plain expressions goes through `sympy.parse_expr`, which is Python's `eval`. Nor are
its time-outs: they are signals, which fail in threads; the pool's parent ends what takes too long.
"""

import re
from functools import lru_cache
from typing import Any

LENGTH_LIMIT = 400
DEPTH_LIMIT = 8
NUMBER_LIMIT = 1000  # of a number where an exponent, a factorial or a bound of a sum is about

# No quotes, no underscores in a row, no attributes or calls of Python: nothing that means something to `eval`, in case
# a library further down ever uses it. The commands are those of calculus and linear algebra.
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
# What `syntax` does not know; without one of these there is nothing here that it would not have read itself.
_BEYOND = _CALCULUS | {"det", "begin", "gcd", "lcm", "max", "min", "bmod", "pmod", "mod", "cap", "setminus", "mathbb"}
_WORDS = {"matrix", "pmatrix", "bmatrix", "vmatrix", "smallmatrix"}
_DIGITS = 50


def preload() -> None:
    """Import what `same` needs, and make its grammar's tables."""
    _read("1")


def same(gold: str, given: str) -> bool | None:
    """Whether two answers in LaTeX are the same; None if one is refused, or not read either, or nobody can tell."""
    if not (is_harmless(gold) and is_harmless(given)) or not _BEYOND & {*_COMMAND.findall(gold + given)}:
        return None
    ours, theirs = _read(gold), _read(given)
    if ours is None or theirs is None:
        return None
    return _same(ours, theirs)


def readable(text: str) -> bool:
    """Whether the grammar reads an answer."""
    return is_harmless(text) and bool(_BEYOND & {*_COMMAND.findall(text)}) and _read(text) is not None


def is_harmless(text: str) -> bool:
    """Whether a text is short, shallow and small enough to be given to SymPy, and holds nothing but mathematics."""
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
    """A SymPy object, or None if the grammar does not read it."""
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from math_verify.grader import should_treat_as_complex

    try:
        return latex2sympy(text, is_real=not should_treat_as_complex(text), normalization_config=None)
    except Exception:  # it raises whatever happens inside ANTLR and SymPy
        return None


def _same(gold: Any, given: Any) -> bool | None:
    """Scalars by an exact difference; the rest by math-verify, but no relations: it takes `x^2=-1` for `x^2=-2`."""
    import sympy
    from math_verify.grader import is_relation, sympy_expr_eq

    try:
        if is_relation(gold) or is_relation(given):
            return bool(gold == given)
        if isinstance(gold, sympy.Expr) and isinstance(given, sympy.Expr):
            return _same_scalar(gold, given)
        return bool(sympy_expr_eq(gold, given, 6, _DIGITS))
    except Exception:
        return None


def _same_scalar(gold: Any, given: Any) -> bool:
    """Whether the difference is 0: it must be at some point, numerically, and then be proved by simplification."""
    import sympy

    difference = (gold - given).doit()
    names = sorted(difference.free_symbols, key=str)
    point = {name: sympy.Rational(7 * index + 4, 5 * index + 3) for index, name in enumerate(names)}
    value = difference.subs(point).evalf(_DIGITS)
    if value.is_number and abs(value) > sympy.Float(10) ** (10 - _DIGITS):
        return False
    return sympy.simplify(difference) == 0
