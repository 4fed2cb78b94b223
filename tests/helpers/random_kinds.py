"""Random pairs of answers of one kind, each with whether the two are the same answer."""

import math
import random
from fractions import Fraction

Pair = tuple[str, str, bool]  # (given answer, reference answer, whether they are the same)

LENGTHS = {"mm": 1, "cm": 10, "m": 1000, "km": 1_000_000}
TIMES = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
MASSES = {"mg": 1, "g": 1000, "kg": 1_000_000}
MONEY = {"cents": 1, "dollars": 100}


def near_identity(draw: random.Random) -> Pair:
    """Returns two formulas that differ only in a small part of their domain, or by very little."""
    c, n = draw.randrange(300, 10**7), draw.randrange(500, 20_000)
    hidden = draw.choice((f"{c}", f"({c - 17}+17)", rf"\sqrt{{{c * c}}}", f"e^{{{draw.randrange(6, 20)}}}"))
    decoys = "+".join(f"{index}-{index}" for index in range(1, 8))
    given, gold = draw.choice((
        (rf"\tanh {n}", "1"), (rf"\coth({n})", "1"), (rf"{c}\tanh {n}", f"{c}"), (rf"\tanh({n})-\tanh({n + 1})", "0"),
        (rf"x+\sin({n}\pi x)", "x"), (rf"x\cos({2 * n}\pi x)", "x"), (rf"\lfloor {n}x\rfloor/{n}", "x"),
        (f"|x-{hidden}|", f"{hidden}-x"), (f"|x-{hidden}+{decoys}|", f"{hidden}-x"), (f"|x+{hidden}|", f"x+{hidden}"),
        (rf"\sqrt{{(x-{hidden})^2}}", f"{hidden}-x"), (rf"\max(x,-{c})", "x"), (rf"\lfloor x/{10 * c}\rfloor", "0"),
        (r"\int_{-1}^1 |x|^3 dx", r"\int_{-1}^1 x^3 dx"), (r"\sum_{k=1}^n k+\prod_{k=1}^{60}(n-k)",
                                                            r"\frac{n(n+1)}{2}"),
        (f"x+{n}=x", f"x+{c}=x"), (rf"\lfloor x+{n}\rfloor", rf"\lceil x\rceil+{n - 1}"),
        (rf"\lfloor x+1/2\rfloor+{n}", rf"\lceil x-1/2\rceil+{n}"),
    ))  # fmt: skip
    return (given, gold, False) if draw.random() < 0.5 else (gold, given, False)


def chain(draw: random.Random) -> Pair:
    """Returns a chain of equal or contradictory sides, and what it would state."""
    a, b = draw.randrange(2, 60), draw.randrange(2, 60)
    side, value = draw.choice(((f"{a}+{b}", a + b), (rf"{a}\cdot {b}", a * b), (rf"\frac{{{a * b}}}{{{b}}}", a),
                               (rf"\sqrt{{{a * a}}}", a), (f"{a}^2", a * a)))  # fmt: skip
    name = draw.choice(("x", "AB", "m+n", "f(2)", r"\text{area}", r"\angle A", r"S_{ABC}", r"\frac{a}{b}"))
    is_same = draw.random() < 0.5
    stated = value if is_same else value + draw.choice((1, -1, 10))
    sides = draw.choice(([side], [side, side], [f"{value}", side], [side, f"{value}"]))
    return " = ".join([name, *sides, f"{stated}"]), f"{stated}", is_same


def quantity(draw: random.Random) -> Pair:
    """Returns two quantities in units of one or of two dimensions."""
    units, other_units = draw.sample((LENGTHS, TIMES, MASSES, MONEY), 2)
    one, other = draw.choice([*units]), draw.choice([*units])
    value = Fraction(draw.randrange(1, 10**4), draw.choice((1, 2, 5)))
    power = draw.choice((1, 1, 2, 3)) if units is LENGTHS else 1
    exponent = f"^{power}" if power > 1 else ""
    shown = rf"{value} \text{{{one}}}{exponent}"
    is_same = draw.random() < 0.5
    converted = value * Fraction(units[one], units[other]) ** power
    if not is_same and draw.random() < 0.5:
        return shown, rf"{value} \text{{ {draw.choice([*other_units])}}}", False
    if not is_same and units is LENGTHS and draw.random() < 0.5:
        return shown, rf"{value} \text{{ {one}}}^{power % 3 + 1}", False
    return shown, rf"{converted if is_same else converted + 1} \text{{ {other}}}{exponent}", is_same


def repetition(draw: random.Random) -> Pair:
    """Returns two lists, of which one may have a member more often."""
    items = draw.sample(range(-20, 20), draw.randrange(2, 5))
    more = [*items, draw.choice(items)]
    draw.shuffle(more)
    given, gold = draw.choice(((more, items), (items, more), (items, items[::-1]), (more, more[::-1])))
    return ", ".join(map(str, given)), ", ".join(map(str, gold)), len(given) == len(gold)


def capital_letters(draw: random.Random) -> Pair:
    """Returns two orders of the same letters."""
    letters = draw.sample("ABCDEFGH", draw.randrange(3, 6))
    other = letters[:]
    draw.shuffle(other)
    form = draw.choice(("{}", r"\text{{{}}}"))
    return form.format("".join(letters)), "".join(other), letters == other


def plus_minus(draw: random.Random) -> Pair:
    """Returns a tuple or a formula with ±, and the two that it stands for, or two others."""
    a, b = draw.randrange(2, 30), draw.randrange(1, 9)
    is_same = draw.random() < 0.5
    c = a if is_same else a + 1
    given, gold = draw.choice((
        (rf"({b}, \pm {a})", f"({b},-{c}),({b},{c})"), (rf"(\pm {a}, \mp {b})", f"({c},-{b}),(-{a},{b})"),
        (rf"\{{0, \pm {a}\}}", rf"\{{{c},-{a},0\}}"),
        (rf"\frac{{-{b}\pm\sqrt{{{a}}}}}{{2}}", rf"\frac{{-{b}+\sqrt{{{a}}}}}{{2}}, \frac{{-{b}-\sqrt{{{c}}}}}{{2}}"),
        (rf"\mp {a}", rf"\pm {c}"),
    ))  # fmt: skip
    return given, gold, is_same


def matrix_sum(draw: random.Random) -> Pair:
    """Returns a sum of multiples of two matrices, and a matrix."""
    rows, columns, factor = draw.randrange(1, 4), draw.randrange(2, 4), draw.randrange(2, 7)
    one, other = ([[draw.randrange(-9, 10) for _ in range(columns)] for _ in range(rows)] for _ in range(2))
    total = [[factor * a - b for a, b in zip(*pair, strict=True)] for pair in zip(one, other, strict=True)]
    is_same = draw.random() < 0.5
    total[0][0] += not is_same
    first, second, result = (_matrix(matrix) for matrix in (one, other, total))
    return rf"{factor}{first} - {second}", result, is_same


def _matrix(rows: list[list[int]]) -> str:
    return _environment("pmatrix", [" & ".join(map(str, row)) for row in rows])


def _environment(name: str, rows: list[str]) -> str:
    return rf"\begin{{{name}}} " + r" \\ ".join(rows) + rf" \end{{{name}}}"


def cases(draw: random.Random) -> Pair:
    """Returns values with conditions in two orders, or a system of equations and its solution."""
    a, b = draw.randrange(1, 9), draw.randrange(1, 9)
    is_same = draw.random() < 0.5
    c = b if is_same else b + 1
    rows = [rf"x+{a} & \text{{if }} x \ge {b}", rf"{a}-x, & x < {b}"]
    others = [rf"{a}+x & {c} \le x", rf"-x+{a} & \text{{for }} x < {b}"]
    draw.shuffle(others)
    environments = [_environment("cases", part) for part in (rows, others)]
    system = _environment("cases", [f"x = {a}", f"y = {b}"])
    solution = draw.choice((f"({a}, {c})", f"x={a}, y={c}"))
    return draw.choice(((*environments, is_same), (system, solution, is_same)))


def point(draw: random.Random) -> Pair:
    """Returns a point with its name, and a tuple."""
    name = draw.choice(("A", "P", "M"))
    items = draw.sample(range(-20, 20), draw.randrange(2, 4))
    is_same = draw.random() < 0.5
    others = items if is_same else items[::-1]
    shown, gold = (", ".join(map(str, part)) for part in (items, others))
    return draw.choice((f"{name}({shown})", f"{name}=({shown})", rf"\vec{{{name}}} = ({shown})")), f"({gold})", is_same


def chinese(draw: random.Random) -> Pair:
    """Returns a number with Chinese words that keep or change its value, or a date, and a number or another date."""
    number = draw.randrange(2, 99)
    keeps = [f"{number}元", f"{number}平方米", rf"{number}\text{{千米}}", f"{number}千克", f"{number}个"]
    changes = [
        f"{number}万",
        f"{number}千",
        f"{number}倍",
        f"{number}成",
        f"{number}多",
        f"{number}亿元",
        f"{number}分之一",
    ]
    dates = draw.sample([f"{month}月{day}日" for month in range(1, 10) for day in range(1, 10)], 2)
    return draw.choice((
        (draw.choice(keeps), f"{number}", True), (draw.choice(changes), f"{number}", False), (*dates, False),
        (f"x<{number} 或 x>100", rf"(-\infty,{number})\cup(100,\infty)", True),
        (f"x<{number} 且 x>100", rf"(-\infty,{number})\cup(100,\infty)", False),
    ))  # fmt: skip


def renamed_argument(draw: random.Random) -> Pair:
    """Returns two functions that are written with different arguments, or differ."""
    a, b = draw.randrange(2, 9), draw.randrange(1, 9)
    one, other = draw.sample("xtnyz", 2)
    is_same = draw.random() < 0.5
    other_name = "f" if is_same or draw.random() < 0.5 else "g"
    added = "" if is_same or other_name == "g" else f"+{one}"
    return f"f({one})={a}{one}^2+{b}", f"{other_name}({other})={b}+{a}{other}^2{added}", is_same


def other_type(draw: random.Random) -> Pair:
    """Returns two answers with the same numbers that are of different types, or have different marks."""
    a, b = sorted(draw.sample(range(3, 90), 2))
    given, gold = draw.choice((
        (f"f({a})<f(1)<f({b})", f"({b},{a})"), (f"{b}<x<{a}", f"({b + 1},{a})"), (f"[{a},{b}]", f"{a},{b}"),
        (rf"{a}\%", rf"{a}^\circ"), (rf"{a}\%", rf"{a}\text{{ days}}"), (rf"{a}^\circ", rf"{a}\text{{ rad}}"),
        (rf"{a}\text{{ miles}}", rf"{a}\text{{ pieces}}"), (f"{a}:1", rf"{a}\text{{ cm}}"),
        (rf"\{{{a},{b}\}}", f"({a},{b})"), (f"x'+{a}x-c={b}", f"y={b}"), (f"x^{a}={b}", f"{b}"), (f"{a}!", f"{a}"),
        (rf"\frac{{dy}}{{dx}}={a}x", f"y={a}x"), (r"\frac{dy}{dx}", r"\frac{y}{x}"), (rf"{a} \pmod{{{b}}}", f"{a}"),
        (f"{a}x^2+c", f"{a}x^2+{b}+c"), ("Ax+By+C", f"Ax+By+{a}+C"), (r"p \lor q", r"p \land q"),
        (f"{a}x+C", f"{b}x+C"), (f"{a}x^2", f"{a}x^2+C"),
    ))  # fmt: skip
    return (given, gold, False) if draw.random() < 0.5 else (gold, given, False)


def counting(draw: random.Random) -> Pair:
    """Returns two formulas of whole numbers that are equal, or differ far from where most points are drawn."""
    c, n = draw.randrange(600, 10**5), draw.choice("nkm")
    base = draw.choice((rf"\sum_{{j=1}}^{{{n}}} j", f"{n}!", rf"\binom{{{n}+1}}{{2}}", rf"\prod_{{j=1}}^{n} (j+1)"))
    given, gold = draw.choice((
        (f"|{n}-{c}|", f"{c}-{n}"), (rf"\lfloor {n}/{c}\rfloor", "0"), (rf"\binom{{{n}}}{{{c}}}", "0"),
        (rf"\max({n},{c})", f"{c}"), ("|x|", "x"), (rf"\sum_{{j=1}}^{{{n}}}\lfloor j/{c}\rfloor", "0"),
    ))  # fmt: skip
    same = draw.choice((
        (rf"\sum_{{i=0}}^{{{n}}}\binom{{{n}}}{{i}}", f"2^{n}"), (f"({n}+1)!", f"({n}+1) {n}!"),
        (rf"\binom{{2{n}}}{{{n}}}", rf"\frac{{(2{n})!}}{{({n}!)^2}}"), (rf"\binom{{{n}}}{{2}}", f"{n}({n}-1)/2"),
        (rf"\lceil {n}/2\rceil", rf"\lfloor ({n}+1)/2\rfloor"), (rf"\lfloor\log_2 {n}\rfloor+1",) * 2,
    ))  # fmt: skip
    return draw.choice(((f"{base}+{given}", f"{base}+{gold}", False), (*same, True)))


def selection(draw: random.Random) -> Pair:
    """Returns a number of ways to choose or arrange, and a number."""
    n = draw.randrange(4, 30)
    k = draw.randrange(2, n)
    choose = (f"C_{{{n}}}^{{{k}}}", f"C_{{{n}}}^{k % 10}", f"{{}}_{{{n}}}C_{{{k}}}", f"C({n},{k})", f"{n}C{k}")
    arrange = (f"A_{{{n}}}^{{{k}}}", f"P_{{{n}}}^{{{k}}}", f"{{}}_{{{n}}}P_{{{k}}}", f"P({n}, {k})", f"{n}P{k}")
    is_ordered, is_same = draw.random() < 0.5, draw.random() < 0.5
    shown = draw.choice(arrange if is_ordered else tuple(form for form in choose if k < 10 or form != choose[1]))
    value = math.perm(n, k) if is_ordered else math.comb(n, k)
    return shown, f"{value + (not is_same)}", is_same


def conditions(draw: random.Random) -> Pair:
    """Returns inequalities with words or set signs between them, and intervals."""
    a, b = sorted(draw.sample(range(-40, 40), 2))
    c = draw.choice((a, a - 1))
    inner, outer = f"({c},{b})", rf"(-\infty,{c})\cup({b},\infty)"
    shown, gold = draw.choice((
        (rf"x>{a} \text{{ and }} x<{b}", inner), (rf"x>{a} \cap x<{b}", inner), (rf"x<{a} \cup x>{b}", outer),
        (rf"x<{a} \text{{ or }} x>{b}", outer), (rf"\mathbb{{R}}-[{a},{b}]", outer),
        (rf"x<{b} \text{{ and }} x \ne {a}", rf"(-\infty,{c})\cup({c},{b})"),
    ))  # fmt: skip
    return shown, gold, a == c


def named_values(draw: random.Random) -> Pair:
    """Returns equations of names in any order, also with the way to a value, and what they state."""
    a, b = draw.sample(range(2, 60), 2)
    x, y = draw.choice(("xy", "ab", "pq"))
    is_same = draw.random() < 0.5
    c = b if is_same else b + 1
    return draw.choice((
        (f"{y}={b},{x}={a}", f"({a},{c})", is_same), (f"{x}={a}, {y}={b - 1}+1={b}", f"({a},{c})", is_same),
        (f"({a},{b})", f"{y}={c}, {x}={a}", is_same), (f"{x}={a}={b}", f"{x}={b}", False),
        (f"{x}={a}+1={b}", f"{b}", b == a + 1), (f"{x}={a}={b},{y}={a}", f"{x}={b},{y}={a}", False),
        (rf"{a} \text{{ or }} \frac{{{2 * a}}}{{2}}", f"{a}", True), (rf"{a} \text{{ or }} {b}", f"{a}", False),
        (rf"{a + 1}\text{{ hours and }}{b} \text{{ minutes}}", rf"{60 * a + 60 + c}\text{{ minutes}}", is_same),
    ))  # fmt: skip


KINDS = [
    counting,
    selection,
    conditions,
    named_values,
    near_identity,
    chain,
    quantity,
    repetition,
    capital_letters,
    plus_minus,
    matrix_sum,
    cases,
    point,
    chinese,
    renamed_argument,
    other_type,
]
