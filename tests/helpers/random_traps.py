"""Random pairs of answers of one kind: near identities, missing values, words behind a number, residues, bases."""

import random

from .random_kinds import Pair

_LARGE, _PARTS, _METRIC = (3, 9, 15, 17, 19, 22, 25, 29), ("thirds", "fifths", "sixths", "tenths"), ("m", "g", "J", "W")


def far_form(draw: random.Random) -> Pair:
    """Returns two functions that differ only far from 0, or where one variable is much larger than the other."""
    c, power = draw.randrange(2, 9), draw.choice((*_LARGE, 40, 60))
    size = rf"{c} \cdot 10^{{{power}}}" if draw.random() < 0.5 else f"{c}{'0' * power}"
    level = draw.randrange(20, 300)
    return draw.choice((
        (f"|x+{size}|-{size}", "x", False), (rf"x+\lfloor x/({size})\rfloor", "x", False),
        (rf"\max(x,-{size})", "x", False), (rf"{level}-|\ln x-{level}|", r"\ln x", False),
        (rf"{level}^6-|\sqrt{{x}}-{level}^6|", r"\sqrt{x}", False), (f"|x-{size}|", f"|{size}-x|", power < 30),
        (rf"\sqrt{{(x+{10**power}y^2)^2}}-{10**power}y^2", "x", False), (f"|x+{level}|-{level}", "x", False),
        (r"n!+\prod_{k=1}^{200}(n-k)(n-k-200)(n-k-400)", "n!", False), (f"|x^2+{c}|", f"x^2+{c}", True),
    ))  # fmt: skip


def undefined_part(draw: random.Random) -> Pair:
    """Returns a number plus zero times a part that has no value, or one, and the number."""
    a, b = draw.randrange(2, 99), draw.randrange(3, 9)
    missing = draw.choice((r"\tan\frac{\pi}{2}", r"\frac{1}{\sin\pi}", r"\frac{1}{\sin^2 1+\cos^2 1-1}", r"\ln 0"))
    defined = draw.choice((rf"\tan\frac{{\pi}}{{{b}}}", rf"\frac{{1}}{{\sin {b}}}", rf"\ln {b}"))
    is_same = draw.random() < 0.5
    part = defined if is_same else missing
    return draw.choice((
        (rf"{a}+0\cdot {part}", f"{a}", is_same), (rf"{a} \cdot 1^{{{part}}}", f"{a}", is_same),
        (rf"{part}\cdot 0", "0", is_same),
    ))  # fmt: skip


def unknown_function(draw: random.Random) -> Pair:
    """Returns an unknown function of two numbers, which are equal or very near."""
    a, power = draw.randrange(2, 60), draw.choice((3, 50, 130, 300, 2000))
    near = draw.choice((rf"\sqrt{{{a}}}+10^{{-{power}}}", rf"{a}+10^{{-{power}}}", rf"{a}+2^{{{power}}}"))
    exact = f"{a}" if near[0] != "\\" else rf"\sqrt{{{a}}}"
    return draw.choice(((f"f({near})", f"f({exact})", False), (rf"f(\sqrt{{{4 * a}}})", rf"f(2\sqrt{{{a}}})", True)))


def word_behind(draw: random.Random) -> Pair:
    """Returns a number with a word behind it that names what it counts, or that changes it."""
    a = draw.randrange(2, 99)
    noun = draw.choice(("marbles", "people", "blue marbles", "students in the class", "total", "square units", "erg/s"))
    number = draw.choice(("million", "quadrillion", "sixes", "twos", "grand", "myriad", "score", "dozens", "tenfold"))
    change = draw.choice((number, "quadrupled", "below zero", "negated", "inverted", "short", "basis points", "pi",
                          "fails", "googol", "kilo", "BC", "prime", "doubtful", "cannot be"))  # fmt: skip
    count, part = draw.choice((("two", 2), ("three", 3), ("four", 4))), draw.choice(_PARTS)
    bottom = {"thirds": 3, "fifths": 5, "sixths": 6, "tenths": 10}[part]
    shift = draw.choice((0, 1))
    return draw.choice((
        (rf"{a} \text{{ {noun}}}", f"{a}", True), (rf"{a} \text{{ {change}}}", f"{a}", False),
        (r"1 \text{ marble}", "1", True),
        (rf"\text{{{count[0]} {part}}}", rf"\frac{{{count[1] + shift}}}{{{bottom}}}", not shift),
    ))  # fmt: skip


def metric(draw: random.Random) -> Pair:
    """Returns quantities with prefixes before their units."""
    a, unit = draw.randrange(1, 99), draw.choice(_METRIC)
    prefix, power = draw.choice((("k", 3), ("m", -3), ("n", -9), ("M", 6), ("G", 9)))
    shift = draw.choice((0, 1))
    size = f"{a}{'0' * (power + shift)}" if power > 0 else f"0.{'0' * (-power - 2 + shift)}{a:02}"
    return rf"{a}\ \mathrm{{{prefix}{unit}}}", rf"{size}\ \text{{{unit}}}", not shift


def residue(draw: random.Random) -> Pair:
    """Returns residues of one modulus, in two orders or with one changed."""
    m = draw.randrange(5, 40)
    a, b, c = draw.sample([value for value in range(1, m) if 2 * value != m], 3)
    name, joint = draw.choice("nxk"), draw.choice((",", r" \text{ or } ", ", "))
    other = draw.choice((b, c))
    given, gold = rf"{name}\equiv {a}{joint}{b} \pmod{{{m}}}", rf"{name} \equiv {other}, {a} \pmod {{{m}}}"
    sign = (rf"{name} \equiv \pm {a} \pmod{{{m}}}", rf"{name} \equiv {a}, {m - a} \pmod{{{m}}}", True)
    return draw.choice(((given, gold, other == b), sign, (rf"{name}\equiv {a} \pmod{{{m}}}", gold, False)))


def based(draw: random.Random) -> Pair:
    """Returns numerals to bases above 10, of which the order of digits counts."""
    digits, base = draw.sample("ABC", 2) + draw.choices("0123456789", k=2), draw.choice((13, 14, 16))
    draw.shuffle(digits)
    other = draw.choice((digits, digits[::-1], digits[1:] + digits[:1]))
    numeral = "".join(digits)
    return draw.choice((
        (rf"\text{{{numeral}}}_{{{base}}}", f"{''.join(other)}_{{{base}}}", digits == other),
        (f"{numeral}_{{{base}}}", f"{numeral}_{{{base + 2}}}", False), ("AB_{16}", "BA_{16}", False),
        (f"{base}_{{10}}", f"{base}", True), (f"{base}_{{8}}", f"{base}", False),
    ))  # fmt: skip


def named_side(draw: random.Random) -> Pair:
    """Returns equations that state a value of one name or of two, in letters, signs and words."""
    a, (x, y, z) = draw.randrange(2, 99), draw.sample("pqvxyz", 3)
    sign = draw.choice(("", "/", "+", "-"))
    strange = draw.choice((r"\foo{d x}{d t}", r"\rac{dx}{dt}", "x_{1d}", r"\vec{AB}", "PQRST"))
    return draw.choice((
        (f"{x}{sign}{y}={a}", f"{x}{sign}{z}={a}", False), (f"{x}{sign}{y}={a}", f"{x}{sign}{y}={a}.0", True),
        (rf"\rac{{dx}}{{dt}}={a}x", rf"\frac{{dx}}{{dt}}={a}x", False),
        (rf"{strange}={a}", f"{x}={a}", strange == "PQRST"), (f"{x}+{y}={a}", f"{a}", True),
        (f"{x}+{y}={a}", f"{a + 1}", False), (f"10{x}={a}", f"{a}", False),
        (rf"\text{{minus }}{a}", f"-{a}", True), (rf"\text{{about }}{a}", f"{a}", True),
        (rf"\text{{Area}}={a}", f"S={a}", True), ("PQRST=CD", "AB=CD", False), (f"f({x})={a}{x}", f"f(t)={a}t", True),
        (rf"f({x})\equiv {a}", f"f({x})={a}", True), (f"{x}=c_1e^{a}", f"{x}=C_1e^{a}", True),
        (f"{x}=c_1+C_2", f"{x}=C_1+C_1", False), (f"{a}x+K", f"{a}x+C", True),
    ))  # fmt: skip


def symbols(draw: random.Random) -> Pair:
    """Returns formulas of physics: of many variables, with derivatives, and with letters that could be words."""
    a = draw.randrange(2, 99)
    b = draw.choice((a, a + 1))
    radiation = r"\frac{{{} h c^2 R^2}}{{\lambda^5 (e^{{h c/(\lambda k T)}}-1) d^2}}"
    turned = (
        r"\frac{{{} hc^2}}{{\lambda^5\left(e^{{\frac{{hc}}{{\lambda kT}}}}-1\right)}}\left(\frac{{R}}{{d}}\right)^2"
    )
    waves = rf"\frac{{\cos 2t}}{{{a}}}+C_1e^t+C_2e^{{-t}}+C_3\cos t+C_4\sin t"
    return draw.choice((
        (turned.format(a), radiation.format(b), a == b),
        (rf"y=c_1e^t+c_2e^{{-t}}+c_3\cos t+c_4\sin t+\frac{{1}}{{{b}}}\cos 2t", waves, a == b),
        (rf"\frac{{\sinh(at)}}{{{a}}}", rf"\frac{{e^{{at}}-e^{{-at}}}}{{{2 * b}}}", a == b),
        (rf"\frac{{{a}aM^{{2}}}}{{b+GM}}", rf"\frac{{{b} a M^2}}{{G M+b}}", a == b),
        (rf"\frac{{d^2y}}{{dx^2}}={a}", rf"\frac{{d^{{2}} y}}{{d x^{{2}}}}={b}", a == b),
        (rf"\frac{{dy}}{{dx}}={a}", rf"\frac{{dx}}{{dy}}={a}", False),
        (f"dy/dx={a}x", rf"\frac{{dy}}{{dx}}={a}x", True),
    ))  # fmt: skip


def joined(draw: random.Random) -> Pair:
    """Returns conditions, sets, fractions and rows that stand side by side."""
    a, b = sorted(draw.sample(range(2, 50), 2))
    c = draw.choice((b, b + 1))
    rows = draw.choice(("aligned", "align*", "split", "gathered"))
    return draw.choice((
        (rf"x>{b} \text{{ and }} x<{a}", rf"x<{a} \text{{ or }} x>{b}", False),
        (rf"x>{b} \text{{ or }} x<{a}", rf"x<{a} \text{{ or }} x>{c}", b == c),
        (rf"\{{\{{{a}\}}\}}", rf"\{{{a}\}}", False), (rf"\{{{a}\}}", f"{a}", True),
        (rf"{a}\frac{{{b}}}{{{a}}}", f"{b}", False),
        (rf"{a}\frac{{{b}}}{{{a}}}", rf"\frac{{{a * a + b}}}{{{a}}}", False),
        (rf"{a}\frac{{{a}}}{{{b}}}", rf"\frac{{{a * c + a}}}{{{c}}}", b == c),
        (rf"\begin{{{rows}}} x &= {a}+{b} \\ &= {a + b} \end{{{rows}}}", f"x={a + c}", b == c),
        (rf"\begin{{{rows}}} x &= {b} \end{{{rows}}}", f"{c}", b == c),
        (rf"\begin{{{rows}}} x &= {a} \\ y&={b} \end{{{rows}}}", f"x={a}, y={c}", b == c),
        (rf"{a}\,\mu\text{{m}}", rf"{a * 1000}\text{{ nm}}", True),
        (rf"{a}\ \mathrm{{μs}}", rf"{b}\text{{ us}}", False),
        (rf"\lnot p_{{{a}}}", rf"\neg p_{{{c}}}", False), (rf"{a} m^{{0.25}}", f"{a} m", False),
    ))  # fmt: skip


KINDS = [named_side, symbols, joined, far_form, undefined_part, unknown_function, word_behind, metric, residue, based]
