"""Random responses without a box, and reference answers."""

import random

Case = tuple[str, str, bool]  # response, reference answer, whether it is correct

_LEADS = (
    "So the total is therefore {}.", "Hence, the value of the whole expression equals {}.", "We conclude that z is {}",
    "First we add them.\nThus, the required area of the larger region is {}.", "The result, as was to be shown, is {}",
)  # fmt: skip


def formula(draw: random.Random) -> Case:
    """Returns a response that ends with a formula in plain text; no number of the formula is the answer."""
    # No squares, and nothing small: 4√16 is 16, and 3! / 2 is 3.
    a, b, c = draw.sample([n for n in range(7, 30) if n not in (9, 16, 25)], 3)
    plain, latex = draw.choice((
        (f"{a}π", rf"{a}\pi"), (f"{a}x^2 + {b}x - {c}", f"{a}x^2+{b}x-{c}"), (f"-{a} + i", f"i-{a}"),
        (f"({a} + √{b}) / {c}", rf"\frac{{{a}+\sqrt{{{b}}}}}{{{c}}}"), (f"{a}√{b}", rf"{a}\sqrt{{{b}}}"),
        (f"{a}*sqrt({b})", rf"{a}\sqrt{{{b}}}"), (f"{a}! / {b}", rf"\frac{{{a}!}}{{{b}}}"), (f"{a}n", f"{a}n"),
        (f"{a} * {b}^{c}", rf"{a} \cdot {b}^{{{c}}}"), (f"c^{a} + {b}", f"c^{{{a}}}+{b}"), (f"x > {a}", f"x>{a}"),
        (f"({a} - {b}i) / {c}", rf"\frac{{{a}-{b}i}}{{{c}}}"), (f"{a} - x", f"{a}-x"), (f"{a}^n - {b}", f"{a}^n-{b}"),
    ))  # fmt: skip
    gold = draw.choice((latex, latex, f"{a}", f"{b}", f"{c}", f"-{a}", f"-{c}"))
    return draw.choice(_LEADS).format(plain), gold, gold == latex


def number(draw: random.Random) -> Case:
    """Returns a response that ends with a number, maybe behind its calculation or before a unit."""
    a, b = draw.sample(range(2, 40), 2)
    plain, value = draw.choice((
        (f"{a} + {b} = {a + b}", a + b), (f"{a} * {b} = ${a * b}", a * b), (f"{a} x {b} = {a * b}", a * b),
        (f"{a} - 1 = {a - 1} more", a - 1), (f"{a}g in all", a), (f"{a}km", a), (f"{a} + {b} of them", a + b),
        (f"{a} hours", a), (f"{a} base-{b} numbers", a),
    ))  # fmt: skip
    gold = draw.choice((value, value, b))
    return draw.choice(_LEADS).format(plain), f"{gold}", gold == value


def count(draw: random.Random) -> Case:
    """Returns a response whose last sentence says how many there are, before other numbers."""
    a, b = draw.sample(range(2, 90), 2)
    mark = draw.choice(("{}", "**{}**")).format(a)
    sentence = draw.choice((
        f"Therefore, there are {mark} values of x for which f(f(x)) = {b}.", f"There are **{a}** values of $f({b})$.",
        f"Thus there are {mark} numbers in the range of \\( f(x) \\).", f"So there are {mark} roots of $x^{b}$",
        f"Hence there are exactly {mark} base-10 integers with {b} digits.", f"We have **{a}** pairs (x, y) up to {b}.",
    ))  # fmt: skip
    other = f"There are {b} boxes with {b} each, so there are {a} of them."
    gold = draw.choice((a, a, b))
    return f"We count them.\n\n{draw.choice((sentence, other))}", f"{gold}", gold == a


KINDS = [formula, number, count]
