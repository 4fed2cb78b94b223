"""Random pairs of answers of one kind: remarks, conditions, exceptions, families, labels and marks around a value."""

import random

from .random_kinds import Pair

_DOMAINS = (r", k\in\mathbb{Z}", r"\ (k\in\mathbb{Z})", r" \text{ for any integer } k", r", \text{ where } k \in Z")


def remark(draw: random.Random) -> Pair:
    """Returns a value with a reason, an emphasis, another form or a hedge beside it, and a value."""
    a, b = draw.sample(range(2, 90), 2)
    is_same = draw.random() < 0.5
    gold = a if is_same else b
    kept = draw.choice((
        rf"x={a} \text{{ (since }} x>0)", rf"{a} \text{{ because }} x>0", rf"{a}, \text{{ since }} n \ne {b}",
        rf"x={a}\ (x>0)", rf"\text{{exactly }} {a}", rf"n={a}\text{{ only}}", rf"\text{{The answer is }} {a}",
        rf"\text{{Area: }} {a}", rf"{a} \text{{ (or }} \frac{{{2 * a}}}{{2}})", rf"\frac{{{2 * a}}}{{2}} (= {a})",
    ))  # fmt: skip
    changed = draw.choice((
        rf"{a} \text{{ (or }} {b})", rf"\text{{maybe }} x={a}", rf"\text{{at least }} x={a}", f"%x={a}",
        rf"\text{{all except }} x={a}", rf"{a} \text{{ vs }} b", rf"{b} \text{{ because }} x={a}",
        rf"\text{{The answer is not }} {a}", rf"\text{{I guess }} x={a}", rf"{a}\text{{ (rejected)}}",
    ))  # fmt: skip
    name = draw.choice(("maybe", "at least", "neither", "I guess", "all except"))
    unit = draw.choice((
        (rf"\text{{{name} }} f({b})={a}", f"f({b})={a}"), (rf"e^{a} \text{{ in }} -{b}", f"e^{a}"),
        (rf"e^{a} \text{{ in }} q", f"e^{a}"), (f"{a} m/s^{{q}}", f"{a} m/s"), (f"{a} cm'", f"{a} cm"),
    ))  # fmt: skip
    return draw.choice(((kept, f"{gold}", is_same), (changed, f"{a}", False), (*unit, False)))


def condition(draw: random.Random) -> Pair:
    """Returns functions with a condition in brackets, of which one is left out or differs."""
    a, b = draw.sample(range(2, 9), 2)
    form = draw.choice((r"\sqrt{{x}}+{}", r"\frac{{{}}}{{x}}", "{}x^2")).format(a)
    c = draw.choice((0, 1))
    return draw.choice((
        (f"y={form} (x>{c})", rf"y={form}\ (x > {c})", True), (f"y={form}", f"y={form}(x>{c})", True),
        (f"y={form} (x>{c})", f"y={form} (x>{c + 1})", False), (f"y={form} (x>{c})", f"y={form}", False),
        (f"y={form}+{b} (x>{c})", f"y={form} (x>{c})", False), (f"P(X>{a})", "P", False),
        (rf"a_n={a}n-{b}", rf"a_n={a}n-{b}\ (n\in\mathbb{{N}}^*)", True),
    ))  # fmt: skip


def exception(draw: random.Random) -> Pair:
    """Returns all numbers but some, in words and in signs."""
    a, b = sorted(draw.sample(range(-20, 20), 2))
    c = draw.choice((b, b + 1))
    two = draw.choice((
        rf"\text{{all real numbers except }} {a} \text{{ and }} {b}", rf"\mathbb{{R}}-\{{{a},{b}\}}",
        rf"\text{{All reals except }} x={a} \text{{ and }} x={b}", rf"x\ne {a} \text{{ and }} x\ne {b}",
        rf"x \ne {a}, {b}",
    ))  # fmt: skip
    union = rf"(-\infty,{a})\cup({a},{c})\cup({c},\infty)"
    one = draw.choice((rf"\text{{all real }} x \ne {b}", rf"\text{{all real numbers except for }} {b}"))
    return draw.choice(((two, union, b == c), (one, rf"x\neq {c}", b == c), (one, r"\mathbb{R}", False)))


def family(draw: random.Random) -> Pair:
    """Returns numbers that a whole number counts, from two starts or in two steps."""
    bottom, step, shift = draw.randrange(2, 9), draw.choice((1, 2)), draw.randrange(-3, 4)
    is_same = draw.random() < 0.5
    top = 1 + bottom * step * shift + (not is_same)
    sign = draw.choice("+-")
    shown = rf"\frac{{{top}\pi}}{{{bottom}}}{sign}{step}k\pi"
    gold = rf"x=\frac{{\pi}}{{{bottom}}}+{step}n\pi, n\in\mathbb{{Z}}"
    form = draw.choice((rf"x={shown}{draw.choice(_DOMAINS)}", rf"\{{x\mid x={shown}, k\in\mathbb{{Z}}\}}"))
    name = draw.choice(("x", "x", "x", "y", "f(k)"))  # values of a function are no family
    form = form.replace("x=", f"{name}=")
    gold = gold if name == "y" else gold.replace("x=", "f(n)=" if name == "f(k)" else "x=")
    return form, gold, is_same and (name == "x" or name != "y" and top == 1 and sign == "+")


def markup(draw: random.Random) -> Pair:
    """Returns an answer with marks of HTML or Markdown, and one without."""
    a, b = draw.sample(range(2, 30), 2)
    is_same = draw.random() < 0.5
    c = b if is_same else b + 1
    given, gold = draw.choice((
        (f"x<sup>{b}</sup>+{a}", f"{a}+x^{{{c}}}"), (f"<b>{b}</b>", f"{c}"), (f"a<sub>{b}</sub>", f"a_{{{c}}}"),
        (f"x &lt; {b}", f"x<{c}"), (f"{a} &times; {b}", f"{a * c}"), (f"**{b}**", f"{c}"), (f"_{b}_", f"{c}"),
        (f"x&ge;{b}", rf"x\ge{c}"), (f"{b}&deg;", f"{c}"),
    ))  # fmt: skip
    return draw.choice(((given, gold, is_same), (f"a<b>{a}", f"{a}", False)))


def determinant(draw: random.Random) -> Pair:
    """Returns a determinant in one of its forms, and a number."""
    a, b, c, d = (draw.randrange(-9, 10) for _ in range(4))
    rows = rf"{a} & {b} \\ {c} & {d}"
    form = draw.choice((
        r"\det\begin{{pmatrix}} {} \end{{pmatrix}}", r"\begin{{vmatrix}} {} \end{{vmatrix}}",
        r"\left|\begin{{array}}{{cc}} {} \end{{array}}\right|", r"\left|\begin{{matrix}} {} \end{{matrix}}\right|",
    ))  # fmt: skip
    is_same = draw.random() < 0.5
    return form.format(rows), f"{a * d - b * c + (not is_same)}", is_same


def label(draw: random.Random) -> Pair:
    """Returns labels of statements that hold, with and without "only"."""
    one, two, three = draw.sample(("I", "II", "III", "IV"), 3)
    return draw.choice((
        (rf"\text{{{one} and {two}}}", f"{one} and {two} only", True), (f"{one}, {two}", f"{two} and {one} only", True),
        (rf"\text{{{one} only}}", one, True), (rf"\text{{{one} and {three}}}", f"{one} and {two} only", False),
        (rf"\text{{{one} or {two}}}", draw.choice((f"{one} and {two}", f"{one}, {two}")), False),
        (one, f"{one} and {two} only", False),
    ))  # fmt: skip


def counted(draw: random.Random) -> Pair:
    """Returns a number with what it counts or when it is, and a number or a time."""
    a, b = draw.sample(range(2, 12), 2)
    half, other = draw.sample(("am", "pm"), 2)
    return draw.choice((
        (rf"{a} \text{{ ordered pairs}}", f"{a}", True), (rf"{a}\text{{ pairs}}", f"{a}", False),
        (rf"{a} \text{{ more roots}}", f"{a}", False),
        (rf"{a} \text{{ positive integers}}", f"{a}", True), (rf"{a} \text{{ distinct real roots}}", f"{b}", False),
        (rf"{a} \text{{ {half}}}", f"{a}:00 {half.upper()}", True), (f"{a} {half}", f"{a}:00 {other}", False),
        (rf"{a}\% \text{{ of the students}}", rf"{a}\%", True), (rf"{a}\% W", rf"{a}\%", False),
        (r"\text{the first player}", "first player", True), ("first player", "1", False),
        (rf"\text{{{a} {half}}}", f"{a}", False), (rf"{a}\text{{ in }}{a + b}", rf"\frac{{{a}}}{{{a + b}}}", True),
        (rf"[{a},{a + b}] \text{{ or }} [20,30]", rf"[{a},{a + b}]\cup[20,30]", True),
    ))  # fmt: skip


KINDS = [remark, condition, exception, family, markup, determinant, label, counted]
