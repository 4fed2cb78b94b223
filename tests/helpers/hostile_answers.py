"""Answers that try to hang or crash a grader, to fill its memory, or to run code in it."""

import random
from collections.abc import Callable, Iterator

MARKER = "nft_jax_hostile_marker"  # a file of this name appears where code of an answer has run

CODE = [
    f"__import__('os').system('touch {MARKER}')",
    f"().__class__.__base__.__subclasses__()[0].__init__.__globals__['os'].system('touch {MARKER}')",
    f"(lambda: open('{MARKER}','w'))()",
    f"exec(\"open('{MARKER}','w')\")",
    f"open('{MARKER}', 'w').write('1')",
    f"eval(compile('open(\\'{MARKER}\\',\\'w\\')','','exec'))",
    f"[x for x in [open('{MARKER}','w')]]",
    f"Symbol('x').func(open('{MARKER}','w'))",
    f"\\operatorname{{open}}({MARKER})",
    f"1/(1-1) or open('{MARKER}','w')",
    f'f\'{{open("{MARKER}","w")}}\'',
    "x.__class__.__mro__",
    "sympify('1').func",
    "os.system('true')",
]

_FIXED = [
    "\x00", "\x00" * 1000 + "5", "\ud800", "\udfff5", "\ufeff5\u202e", "5\u0301" * 500, "💣" * 1000, "\r\n" * 2000,
    r"\frac", r"\frac{", r"\sqrt", r"\sqrt[", r"\sqrt[3]", r"\begin{pmatrix}", r"\begin{pmatrix}\end{pmatrix}",
    r"\left(", "^", "^^^^", "_", "}{", "⦃", "⟦", "⟦⟧", "¶", "|", "||||||", "±±±±", "%%%", r"\\\\\\", "\\", "$", "$$",
    r"\sum_{n=1}^{\infty}\frac{1}{n^{s}}", r"\sum_{n=1}^{9999999999} n!", r"\prod_{n=1}^{9999} (x+n)",
    r"\int_0^\infty e^{-x^{x^x}} dx", r"\int \int \int \frac{\sin x}{x^5+x+1} dx dx dx",
    r"\lim_{x\to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^{7}}", r"\operatorname{eye}(99999)",
    r"\operatorname{zeros}(99999,99999)",
    r"\binom{9999}{4999}", r"\binom{10^{9}}{10^{8}}", r"\gcd(10^{99},7)", r"\det(1)",
    r"\overline{" * 50 + "5" + "}" * 50,
    "0." + "0" * 900 + "1", "1e999999999", "1E-999999999", "9" * 5000, "1/0", r"\frac{1}{0}", "0^0", "0^{-1}",
    "-" * 2001,
    "(" * 10_000, ")" * 10_000, "{" * 10_000, "{" * 10_000 + "}" * 10_000, r"\{" * 500 + r"\}" * 500,
    "[" * 39 + "1" + "]" * 39,
    ",".join("1" * 1000), ";".join(map(str, range(450))), ",".join(f"x_{i}" for i in range(300)),
    "+".join(f"\\sqrt{{{p}}}" for p in range(2, 180)), "*".join(f"(x_{i}+1)" for i in range(60)),
    "(a+b+c+d+e+f+g+h)^{60}",
    r"\sin(" * 30 + "x" + ")" * 30, "e^{" * 35 + "x" + "}" * 35, r"\sqrt{1+" * 35 + "x" + "}" * 35, r"\pm" * 500 + "1",
    r"\pm(" * 30 + "1" + ")" * 30, "1=" * 500 + "1", "1<" * 500 + "1",
    r"\text{" * 100 + "a" + "}" * 100, r"\text{a}" * 300,
    "and " * 500, r"\cup".join(["[0,1]"] * 300), "!" * 1000, "3" + "!" * 12, "x" + "'" * 1000, r"\frac12" * 250,
    r"\log_" * 300 + "2",
    r"\sqrt{999999999989}", r"\sqrt{999983000071}", r"\sqrt[997]{" + "7" * 900 + "}", r"\sin(10^{9999})",
    r"\tan(10^{10^{9}})",
]  # fmt: skip


def _tower(draw: random.Random) -> str:
    depth = draw.randrange(3, 40)
    base = draw.choice(["2", "9", "10", "x", "e", r"\pi", "0.5", "(-2)", r"\sqrt{2}", "99999"])
    return draw.choice([f"{base}^{{" * depth + base + "}" * depth, "^".join([base] * depth), "**".join([base] * depth)])


def _factorials(draw: random.Random) -> str:
    chain = "(" * 9 + str(draw.randrange(3, 10_000)) + "!)" * 9
    return draw.choice(
        [chain, f"{draw.randrange(10**9)}!", f"{draw.randrange(3, 9)}" + "!" * draw.randrange(2, 30), "x!!!"]
    )


def _nested_fraction(draw: random.Random) -> str:
    depth = draw.choice([5, 30, 41, 200, 2000])
    command = draw.choice([r"\frac{1}{1+", r"\frac{x}{x+", r"\cfrac{", r"\frac1{2+"])
    return command * depth + "x" + "}" * depth


def _digits(draw: random.Random) -> str:
    count = draw.choice([100, 999, 1001, 5000, 100_000])
    number = "".join(draw.choices("0123456789", k=count))
    return draw.choice(
        [number, f"{number}.{number}", f"\\frac{{{number}}}{{{number}}}", f"{number}^{{{number}}}", f"0.{number}"]
    )


def _huge(draw: random.Random) -> str:
    return draw.choice(["{", "x", "\\frac", "9", "$", "\\boxed{", "((", "1,", " ", "\x00"]) * draw.choice(
        [10_000, 1_000_000]
    )


def _soup(draw: random.Random) -> str:
    pieces = [*r"0123456789+-*/^_=<>()[]{}|!,.;:$%&' abcexyzi", "\\", r"\frac", r"\sqrt", r"\left(", r"\right)",
    r"\pi",
              r"\sin", r"\int", r"\sum", r"\infty", r"\cup", r"\pm", r"\begin{pmatrix}", r"\end{pmatrix}", r"\\",
              r"\text{",
              r"\boxed{", r"\{", r"\}", r"\ln", r"\log_", r"\binom", "\x00", "\ud800", "π", "√", "¶", "⦃",
              "⟧"]  # fmt: skip
    return "".join(draw.choices(pieces, k=draw.choice([3, 10, 40, 200, 1500])))


def _elementary(draw: random.Random, depth: int = 5) -> str:
    """Returns a random formula that the grammar reads and that may be costly to evaluate."""
    if depth == 0 or draw.random() < 0.15:
        return draw.choice(["x", "y", "2", "7", "99", r"\pi", "e", "i", "0", "0.001", str(draw.randrange(10**6))])
    form = draw.choice(["({}+{})", "({}-{})", "{} {}", r"\frac{{{}}}{{{}}}", "({})^{{{}}}", r"\sqrt{{{}}}",
    r"\sin({})",
                        r"\ln({})", "e^{{{}}}", "({})!", r"\tan({})", "|{}|", r"\arcsin({})",
                        r"\log_{{{}}}({})"])  # fmt: skip
    return form.format(*(_elementary(draw, depth - 1) for _ in range(form.count("{}"))))


_MAKERS: list[Callable[[random.Random], str]] = [_tower, _factorials, _nested_fraction, _digits, _soup, _elementary]


def hostile_items(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yields (response, reference answer): every fixed one first, then random ones; no response is correct."""
    references = [
        "7654321",
        r"\frac{7}{65432}",
        r"\sin(7x)+65432",
        r"(7, 65432)",
        r"\int_0^1 7654 x dx",
        r"\text{seven}",
    ]
    draw = random.Random(seed)
    for index in range(count):
        if index < len(_FIXED) + len(CODE):
            answer = (_FIXED + CODE)[index]
        elif index % 50 == 0:
            answer = _huge(draw)
        else:
            answer = draw.choice(_MAKERS)(draw)
        form = ("\\boxed{{{}}}", "{}", "the final answer is ${}$.", "\\boxed{{{}", "#### {}")[
            index % 5 if index % 3 else 0
        ]
        yield form.format(answer), references[index % len(references)]
