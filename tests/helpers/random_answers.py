"""Random answers of every type in random forms, with SymPy values as the oracle of what is equal."""

import itertools
import random
from typing import Any

import sympy

X, Y = sympy.symbols("x y", real=True)


def render_number(value: Any, draw: random.Random) -> str:
    """Returns one of the forms of a rational number."""
    top, bottom = int(value.p), int(value.q)
    sign = "-" if top < 0 else ""
    size = abs(top)
    forms = [rf"{sign}\frac{{{size}}}{{{bottom}}}", f"{sign}{size}/{bottom}", rf"\dfrac{{{top}}}{{{bottom}}}",
             rf"{sign}\frac{{{2 * size}}}{{{2 * bottom}}}",
             f"−{size}/{bottom}" if top < 0 else f"+{size}/{bottom}"]  # fmt: skip
    if bottom == 1:
        forms = [str(top), f"{top}.0", rf"{sign}\mathrm{{{size}}}", rf"{sign}{size}\;", f"{{{top}}}", f"{sign}{size:,}",
                 f"{sign}{size:,}".replace(",", "{,}"),
                 f"{sign}{''.join(chr(0xFF10 + int(d)) for d in str(size))}"]  # fmt: skip
    elif bottom in (2, 4, 5, 8, 10, 20):
        forms.append(f"{float(value):.6f}".rstrip("0"))
    if size > bottom > 1:
        forms.append(rf"{sign}{size // bottom}\frac{{{size % bottom}}}{{{bottom}}}")
    return draw.choice(forms)


def random_number(draw: random.Random) -> Any:
    """Returns a rational number."""
    return sympy.Rational(draw.randrange(-3000, 3000), draw.choice((1, 1, 1, 2, 3, 4, 7, 12)))


def random_constant(draw: random.Random) -> Any:
    """Returns a number that is not rational."""
    a, b = draw.randrange(-9, 10), draw.choice((2, 3, 5, 6, 7, 8, 12))
    return draw.choice((
        a + draw.randrange(1, 5) * sympy.sqrt(b), sympy.pi * sympy.Rational(a or 1, b), sympy.exp(a or 2) + b,
        sympy.log(b) * (a or 1), sympy.sqrt(b) / (a or 3), sympy.cbrt(b) + a, sympy.sin(sympy.Rational(b, 3)) + a,
        a + (b + 1) * sympy.I, sympy.Rational(1, 2) ** (b * 20), sympy.sqrt(sympy.sqrt(b) + 1),
    ))  # fmt: skip


def random_formula(draw: random.Random, depth: int = 2) -> Any:
    """Returns an expression in x and y that holds one of them."""
    if depth == 0:
        return draw.choice((X, Y, X, sympy.Integer(draw.randrange(1, 9))))
    left, right = random_formula(draw, depth - 1), random_formula(draw, depth - 1)
    kind = draw.randrange(8)
    if kind == 0:
        return left + right
    if kind == 1:
        return left * right
    if kind == 2:
        return left - 2 * right
    if kind == 3:
        return left / (right**2 + 1)
    if kind == 4:
        return (left + 1) ** draw.randrange(2, 4)
    if kind == 5:
        return draw.choice((sympy.sin, sympy.cos, sympy.exp))(left)
    return left + draw.randrange(1, 6) if kind == 6 else sympy.sqrt(left**2 + right**2 + 1)


def rewrite(value: Any, draw: random.Random) -> Any:
    """Returns an equal expression."""
    ways = (sympy.expand, sympy.factor, sympy.together, lambda v: v, sympy.expand_trig)
    try:
        return draw.choice(ways)(value)
    except Exception:
        return value


def render(value: Any, draw: random.Random) -> str:
    """Returns a number or formula as LaTeX, plain text or Unicode."""
    if isinstance(value, sympy.Rational):
        return render_number(value, draw)
    if draw.random() < 0.3 and not value.has(sympy.I):
        text = str(value).replace("log", "ln").replace("**", "^" if draw.random() < 0.5 else "**")
        return text.replace("pi", "π").replace("E", "e") if draw.random() < 0.5 else text.replace("E", "e")
    style = {"fold_short_frac": draw.random() < 0.3, "ln_notation": True}
    text = sympy.latex(value, **style, mul_symbol=draw.choice((None, "dot", "times")))
    return rf"\left({text}\right)" if draw.random() < 0.2 else text


def random_answer(draw: random.Random) -> tuple[str, Any]:
    """Returns (kind, value) of an answer; the value is a SymPy object, or a tuple of them."""
    kind = draw.choice(("number", "constant", "formula", "list", "tuple", "set", "interval", "equation"))
    if kind == "number":
        return kind, random_number(draw)
    if kind == "constant":
        return kind, random_constant(draw)
    if kind in ("formula", "equation"):
        return kind, random_formula(draw)
    items = [random_number(draw) for _ in range(2 if kind == "interval" else draw.randrange(2, 5))]
    if kind in ("set", "list"):
        items = list(dict.fromkeys(items))
    if kind == "interval":
        items = sorted(items)
    return kind, tuple(items)


def render_answer(kind: str, value: Any, draw: random.Random) -> str:
    """Returns an answer in one of its forms."""
    if not isinstance(value, tuple):
        text = render(rewrite(value, draw), draw)
        return f"z = {text}" if kind == "equation" else text
    items = list(value)
    if kind in ("set", "list"):
        draw.shuffle(items)
    texts = [render_number(item, draw).replace("{,}", "").replace(",", "") for item in items]
    if kind == "list":
        return draw.choice((", ", r",\ ", "; ")).join(texts)
    if kind == "tuple":
        return draw.choice(("({})", r"\left({}\right)")).format(", ".join(texts))
    if kind == "set":
        return draw.choice((r"\{{{}\}}", r"\left\{{{}\right\}}")).format(", ".join(texts))
    low, high = texts
    return draw.choice((f"[{low}, {high})", rf"{low} \le x < {high}", rf"x \in \left[{low}, {high}\right)"))


def change(kind: str, value: Any, draw: random.Random) -> Any:
    """Returns another value of the same kind."""
    if isinstance(value, tuple):
        items = list(value)
        index = draw.randrange(len(items))
        move = sympy.Rational(draw.choice((1, 7)), draw.choice((1, 3, 1000)))
        items[index] += move if index == len(items) - 1 or kind != "interval" else -move
        return tuple(items)
    return value + draw.choice((1, -1, sympy.Rational(1, 1000), sympy.Rational(1, 10**12), sympy.exp(-40)))


def sign_pair(draw: random.Random) -> tuple[str, str, bool]:
    """Returns two formulas that differ in a sign of absolute value, root or factorial, and whether they are equal."""
    return draw.choice((absolute_pair, factorial_pair))(draw)


def absolute_pair(draw: random.Random) -> tuple[str, str, bool]:
    """Returns two formulas of |u|, of which u is negative only where a variable is."""
    a, b = draw.choice(((1, 0), (1, 0), (3, 0), (0, 1), (1, 2), (2, 1)))
    value = X**a * Y**b * draw.choice((1, 1, draw.randrange(2, 9), sympy.exp(X), 1 / (Y**2 + 1)))
    value = draw.choice((value, value, X + Y))
    u, square = sympy.latex(value), sympy.latex(sympy.expand(value**2))
    positive = draw.choice((f"|{u}|", rf"\left|{u}\right|", rf"\sqrt{{{square}}}", f"|-({u})|"))
    others = [(u, False), (f"-|{u}|", False), (f"-({u})", False), (f"|{u}|", True), (rf"\sqrt{{({u})^2}}", True)]
    other, is_same = draw.choice(others)
    return (positive, other, is_same) if draw.random() < 0.5 else (other, positive, is_same)


def factorial_pair(draw: random.Random) -> tuple[str, str, bool]:
    """Returns two formulas, of which the first holds a sign of the factorial."""
    n, k = draw.randrange(3, 15), draw.randrange(2, 9)
    product = sympy.factorial(n)
    frame, work = draw.choice((
        ("{}", lambda v: v), (rf"\frac{{{{{{}}}}}}{{{{{k}}}}}", lambda v: sympy.Rational(v, k)),
        (f"{k}+{{}}", lambda v: k + v), (f"{k} \\cdot {{}}", lambda v: k * v), (f"{{}}-{k}", lambda v: v - k),
    ))  # fmt: skip
    shown = frame.format(f"{n}!")
    letters = [("n!", "n"), ("(n+1)!", "n+1"), (r"\frac{n!}{2}", r"\frac{n}{2}"), (rf"x^{k}+n!", rf"x^{k}+n")]
    pairs = [(shown, sympy.latex(work(n)), False), (shown, frame.format(n), False),
             (shown, sympy.latex(work(product)), True), (rf"({shown}, {k})", rf"({sympy.latex(work(n))}, {k})", False),
             (*draw.choice(letters), False), ("(n+1)!", r"(n+1)\cdot n!", True)]  # fmt: skip
    return draw.choice(pairs)


def matrix_pair(draw: random.Random) -> tuple[str, str, bool]:
    """Returns a product of two or three matrices and a matrix, and whether they are equal."""
    sizes = [draw.randrange(1, 4) for _ in range(draw.choice((3, 4)))]
    sizes = [max(size, 2) for size in sizes[:1]] + sizes[1:]
    factors = [sympy.Matrix(a, b, lambda *_: draw.randrange(-9, 10)) for a, b in itertools.pairwise(sizes)]
    product = sympy.prod(factors)
    is_same = draw.random() < 0.5
    if not is_same:
        product[draw.randrange(product.rows), draw.randrange(product.cols)] += draw.choice((1, -1, 10))
    sign = draw.choice((" ", r" \cdot ", r" \times "))
    return sign.join(map(render_matrix, factors)), render_matrix(product), is_same


def render_matrix(matrix: Any) -> str:
    """Returns a matrix in LaTeX."""
    rows = r" \\ ".join(" & ".join(map(str, matrix.row(index))) for index in range(matrix.rows))
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
