"""Random pairs of answers of one kind: sets, bases, counts and constants in words, rounded values, remainders, dots."""

import math
import random

from .random_kinds import Pair

_WAYS = {  # to write a set of numbers, in words and in signs
    "positive": (r"\text{all positive real numbers}", r"\text{positive reals}", r"(0,\infty)", r"x>0", r"\mathbb{R}^+"),
    "negative": (r"\text{All negative real numbers}", r"(-\infty,0)", r"x<0"),
    "nonnegative": (r"\text{all nonnegative real numbers}", r"\text{all non-negative reals}", r"[0,\infty)", r"x\ge 0"),
    "nonzero": (r"\text{all nonzero real numbers}", r"\text{all real } x \text{ except } 0", r"x\ne 0"),
    "all": (r"\text{all real values of } x", r"\text{all real numbers}", r"(-\infty,\infty)", r"\mathbb{R}"),
    "counting": (
        r"\text{all positive integers}",
        r"\text{every positive integer}",
        r"\mathbb{Z}^+",
        r"n\in\mathbb{N}^*",
    ),
    "whole": (r"\text{all integers}", r"\mathbb{Z}", r"\text{all integers } n", r"n\in\mathbb{Z}"),
}


def named_set(draw: random.Random) -> Pair:
    """Returns two sets of numbers, each in one of its ways."""
    one, other = draw.choice(list(_WAYS)), draw.choice(list(_WAYS))
    other = one if draw.random() < 0.5 else other
    given, gold = draw.choice(_WAYS[one]), draw.choice(_WAYS[other])
    if draw.random() < 0.1:
        return draw.choice(((r"\text{integer}", r"\mathbb{Z}"), (r"\text{positive integer}", r"\mathbb{Z}^+"))) + (
            False,
        )
    return given, gold, one == other


def base(draw: random.Random) -> Pair:
    """Returns the digits of a number to a base, which stands in words or as a subscript."""
    digits, base_ = draw.randrange(10, 777), draw.choice((8, 9))
    name = {8: "eight", 9: "nine"}[base_]
    given = draw.choice((
        rf"{digits} \text{{ (base {base_})}}", rf"{digits} \text{{ base }} {base_}",
        rf"{digits}_{{\text{{base }} {base_}}}", rf"{digits}\text{{ in base {name}}}",
        f"{digits}_{{{base_}}}", rf"({digits})_{base_}",
    ))  # fmt: skip
    gold = draw.choice((f"{digits}_{base_}", f"{digits}_{base_}", f"{digits + 1}_{base_}", f"{digits}_7", f"{digits}"))
    return given, gold, gold == f"{digits}_{base_}"


def count(draw: random.Random) -> Pair:
    """Returns how many things there are, or a share of one, with a noun."""
    a, b = draw.randrange(2, 60), draw.randrange(61, 99)
    share = rf"\frac{{{a}}}{{{b}}}"
    same = draw.choice((
        (rf"{a} \text{{ positive divisors}}", a), (rf"{a} \text{{ trailing zeros}}", a),
        (rf"{a} \text{{ ordered triples}}", a), (rf"{a} \text{{ positive integer solutions}}", a),
        (rf"{share} \text{{ cup}}", share), (rf"{share} \text{{ of the pizza}}", f"{a}/{b}"),
    ))  # fmt: skip
    other = draw.choice((
        (rf"{share} \text{{ dozen}}", share), (rf"{share} \text{{ squared}}", share), (rf"{a} \text{{ negative}}", a),
        (rf"{a} \text{{ negative degrees}}", a), (rf"{a} \text{{ ordered}}", a), (rf"{b} \text{{ positive roots}}", a),
    ))  # fmt: skip
    is_same = draw.random() < 0.5
    given, gold = same if is_same else other
    return given, f"{gold}", is_same


def constant(draw: random.Random) -> Pair:
    """Returns a function with a constant, with and without the domain of that constant."""
    a, c, k = draw.randrange(2, 9), *draw.sample("bckmp", 2)
    free = [r"{}, {c} \in \mathbb{{R}}", r"{} \text{{ for any real constant }} {c}", r"{} \quad ({c} \in \mathbb{{R}})",
            r"{}, \text{{ where }} {c} \text{{ is an arbitrary constant}}"]  # fmt: skip
    forms = [draw.choice(free).format(f"f(x)={a}x+{name}", c=name) for name in (c, c, k)]
    bare = f"f(x)={a}x+{c}"
    whole = rf"f(x)={a}x+{c}, {c} \in \mathbb{{Z}}"
    some = [rf"{bare} \text{{ for }} {c} \ge {n}" for n in (0, 1)]
    return draw.choice((
        (forms[0], bare, True), (bare, forms[0], True), (forms[0], forms[1], True), (forms[2], forms[0], True),
        (forms[2], bare, False), (whole, forms[0], False), (f"f(x)={a + 1}x+{c}", forms[0], False),
        (rf"{bare}\ ({c} \ge 0)", some[0], True), (rf"{bare} \text{{ with }} {c} \ge 0", some[0], True),
        (some[0], some[1], False), (rf"{bare} \text{{ for some }} {c} \ge 0", some[0], False),
    ))  # fmt: skip


def rounded(draw: random.Random) -> Pair:
    """Returns an exact number with what it is rounded to, and a decimal number."""
    root, places = draw.choice((2, 3, 5, 7, 11)), draw.randrange(1, 5)
    value = draw.choice((math.sqrt(root), root * math.pi))
    exact = rf"\sqrt{{{root}}}" if value < root else rf"{root}\pi"
    shown = f"{value:.{places}f}"
    wrong = f"{value + 10.0**-places:.{places}f}"
    sign = draw.choice((r"{} \approx {}", "{} ≈ {}", r"{} (\approx {})", r"x = {} \approx {}"))
    return draw.choice((
        (sign.format(exact, shown), shown, True), (sign.format(exact, shown), exact, True),
        (sign.format(exact, wrong), wrong, False), (sign.format(exact, shown), wrong, False),
        (rf"v = \sqrt{{2gh}} \approx {shown}", shown, True), (rf"2x \approx {shown}", shown, False),
        (rf"{value:.3f} \approx {value:.0f}", f"{value:.0f}", False),
    ))  # fmt: skip


def remainder(draw: random.Random) -> Pair:
    """Returns a congruence of numbers, maybe with steps, and a remainder."""
    base_, power, modulus = draw.randrange(2, 30), draw.randrange(2, 9), draw.randrange(31, 60)
    left = base_**power % modulus
    right = draw.choice((left, left, (left + 1) % modulus, left + modulus))
    step = draw.choice(("", rf"{base_}^{{{power - 1}}} \cdot {base_} \equiv ", f"{right - 1}+1 = "))
    congruence = rf"{base_}^{{{power}}} \equiv {step}{right} \pmod{{{modulus}}}"
    gold = draw.choice((right, right, (right + 2) % modulus))
    variable = rf"x \equiv {right} \pmod{{{modulus}}}"
    return draw.choice((
        (congruence, f"{gold}", gold == right == left), (variable, f"{right}", False),
        (rf"x \equiv {right + modulus} \equiv {right} \pmod{{{modulus}}}", variable, True),
    ))  # fmt: skip


def dots(draw: random.Random) -> Pair:
    """Returns lists of which dots leave out a part."""
    step, last = draw.randrange(1, 4), draw.choice(("n", "2n-1", "99", "1235"))
    items = [f"{1 + step * index}" for index in range(draw.randrange(2, 4))]
    form = draw.choice((r"{}, \ldots, {}", r"\{{{}, \dots, {}\}}", "{},...,{}", r"n = {}, \ldots, {}"))
    given = form.format(", ".join(items), last)
    other = draw.choice((items, [*items[::-1]], [*items[:-1], "50"]))
    end = draw.choice((last, last, "m"))
    gold = rf"{', '.join(other)}, \ldots, {end}"
    sums = ("1+2+\\cdots+n", "1+3+\\cdots+n", False)
    return draw.choice(((given, gold, other == items and end == last), sums))


def double_factorial(draw: random.Random) -> Pair:
    """Returns a product of every second number by its sign, and a number or formula."""
    n = draw.randrange(3, 20)
    value = math.prod(range(n, 0, -2))
    formula = r"\frac{(2k)!}{2^k k!}"
    return draw.choice((
        (f"{n}!!", f"{value}", True), (f"{n}!!", f"{n}!", False), (f"{n}!!", f"({n}!)!", False),
        ("(2k-1)!!", formula, True), ("(2k)!!", formula, False), ("(2k)!!", r"2^k \cdot k!", True),
        (f"({n}!)!", f"{value}", False),
    ))  # fmt: skip


def statement(draw: random.Random) -> Pair:
    """Returns statements by circled numbers, with or without commas."""
    marks = sorted(draw.sample("①②③④⑤", draw.randrange(1, 4)))
    other = draw.choice((marks, sorted(draw.sample("①②③④⑤", 2))))
    return draw.choice("、, ").join(marks).replace(" ", ""), draw.choice(("", "、")).join(other), marks == other


def pairs_by_name(draw: random.Random) -> Pair:
    """Returns pairs of numbers by the names x and y, and points."""
    a, b, c, d = draw.sample(range(-9, 10), 4)
    first, second = draw.choice(((f"x={a}, y={b}", f"x={c}, y={d}"), (f"y={b}, x={a}", f"y={d}, x={c}")))
    given = draw.choice((r"{} \text{{ or }} {}", "{}, {}", r"{} \text{{ and }} {}", "{}; {}")).format(first, second)
    return draw.choice((
        (given, f"({c},{d}),({a},{b})", True), (given, f"({a},{d}),({c},{b})", False),
        (f"{first}, {c}", f"({a},{b})", False),
        (f"x={a}, y={b}, y={d}, x={c}", f"({a},{b}),({c},{d})", False), (given, f"({a},{b},{c},{d})", False),
    ))  # fmt: skip


def asked_value(draw: random.Random) -> Pair:
    """Returns an equation with the value of what was asked for, or one to be solved, and that value."""
    a, b, m, n = *draw.sample(range(2, 99), 2), *draw.sample("abkmnpq", 2)
    left = draw.choice((f"{a}{m}+{n}", f"{m}+{a}{n}", f"{a}{m}-{n}", rf"\lfloor {a}{m} \rfloor", rf"\min({m}+{n})"))
    solved = draw.choice((f"{a}{m}", f"{a}x+y", f"{a}+{m}", f"{m}^2", f"x+{a}y", f"{a}{m}+{n}^2"))
    gold = draw.choice((b, b, a))
    shown, is_same = draw.choice(((left, gold == b), (solved, False)))
    return f"{shown} = {b}", f"{gold}", is_same


KINDS = [named_set, base, count, constant, rounded, remainder, dots, double_factorial, statement]
KINDS += [pairs_by_name, asked_value]
