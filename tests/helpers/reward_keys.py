"""Answers made to earn a reward for any reference answer, and reference answers of every type that none of them is."""

import random
from collections.abc import Iterator

_ZEROS = (
    r"\sin^2 {a}+\cos^2 {a}-1", r"\cosh^2({a})-\sinh^2({a})-1", r"\ln e^{{{a}}}-{a}", r"\sqrt{{{a}^2}}-{a}",
    r"\tan {a}-\frac{{\sin {a}}}{{\cos {a}}}", r"\log_2 2^{{{a}}}-{a}", r"e^{{\ln {a}}}-{a}",
)  # fmt: skip
_HUGE = (
    r"e^{{{n}}}",
    r"10^{{{n}}}",
    r"{n}!",
    r"2^{{2^{{{k}}}}}",
    r"\cosh {n}",
    r"{n}^{{{n}}}",
    r"\frac{{1}}{{10^{{-{n}}}}}",
)
_TINY = (r"e^{{-{n}}}", r"10^{{-{n}}}", r"\frac{{1}}{{{n}!}}", r"2^{{-{n}}}", r"\frac{{1}}{{\cosh {n}}}")
_UNDEFINED = (
    r"\frac{0}{0}", r"\frac{1}{0}", r"0^0", r"\log 0", r"\infty-\infty", r"\frac{\infty}{\infty}", r"\ln(-0)",
    r"0\cdot\infty", r"\tan\frac{\pi}{2}", r"\sqrt{-\infty}", "NaN", "None", "nan", "undefined", 
    "null", "?", r"\square",
    r"\boxed{}", r"\ldots", "x", "n", r"\text{answer}", r"\text{the answer}", "...", "(,)", "{}", r"\{\}", "()", "[]",
    r"\mathbb{R}", r"x\in\mathbb{R}", "any number", "all real numbers", r"(-\infty,\infty)", "0=0", "1=1", "x=x",
    r"\sin^2 x+\cos^2 x=1", "2+2=4", r"e^{i\pi}+1=0", "0<1", "the same as the reference", r"\text{gold}",
    r"\phantom{5}", r"\text{}", "$", r"\$", "%", r"\%", "-", "+", "=", r"\pm", r"\%\%", "*", "_", "!", r"\ ",
)  # fmt: skip
_FOREIGN = ("偶数", "нет", "否", "لا", "不存在", "нечётное", "γ", "ε", "αριθμός", r"\text{偶数}", "triangle A'B'C'")
_HEDGES = (
    "{g} or {b}", "{b} or {g}", "{g}, {b}", "{b}; {g}", r"{g} \text{{ or }} {b}", r"\{{{g}, {b}\}}", "({g}, {b})",
    "either {g} or {b}", r"{g}\text{{ or possibly }}{b}", "{g} = {b}", "{g} ({b})",
    r"{g} \text{{ or any other number}}",
    r"{g}\pm{b}", "not {g}", r"\text{{not }}{g}", r"{g} \text{{ (wrong)}}", r"{g}\approx{b}, {b}", "[{g}, {b}]",
    r"{g} \to {b}", r"\neg {g}", "{g} + {b}", "{g}{b}", "{g}!!!", "{g} squared", "{g} over six", 
    "{g} dozen",
    "{g} halves", "{g} doubled", "{g} lakh", "{g} plus one", "{g} times seven", "{g}_{b}", 
    "{g} minus two", "({g})^{{{b}}}+w",
    r"\text{{if }}x>0\text{{ then }}{g}\text{{ else }}{b}", "{g} if true, otherwise {b}", "{g} thirds", "{g} cubed",
)  # fmt: skip
_LOOKALIKES = {"5": "Ƽ", "x": "х", "A": "Α", "e": "℮", "1": "l", "0": "O", "π": "∏", "a": "а"}

# Reference answers of every type; no key is equal to one of them, and 41 and `w` occur in none.
GOLDS = {
    "number": ["5", "-7", "12", "0.001", "3.5", r"\frac{3}{7}", "1000000", r"-\frac{22}{9}", "2^{31}", "120"],
    "expression": [r"\pi", r"\sqrt2", r"1+\sqrt{5}", r"\frac{\pi}{6}", r"e^3", "3+4i", r"\ln 2", r"\sinh 2000",
                   r"2^{-99}"],
    "formula": ["x^2", "2x+1", r"\frac{n(n+1)}{2}", r"\sin x", "2^{n}", "N(0)e^{kt}",
                r"|x-5|", "x^2y-3", r"\binom{n}{3}"],
    "list": ["2,3", "1,2,3", r"-1, \frac12", r"1\pm\sqrt2", "5; 10"],
    "tuple": ["(2,3)", "(1,-2,5)", r"(\pi, 4)", "((1,2),(3,4))"],
    "set": [r"\{1,2\}", r"\{-3\}", r"\{2,3,5,7\}"],
    "interval": ["[1,2)", r"(-\infty,1)\cup(2,\infty)", r"[3,\infty)", "(0,1)", r"x>3", "0<x<7", r"|x|<3"],
    "relation": ["x=5", "y=2x+1", "x^2+y^2=4", "2x+3y>6", "x=1,y=2", r"x\equiv 3 \pmod 5", "f(x)=x^2"],
    "matrix": [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}7\\8\end{pmatrix}"],
    "text": ["even", r"\text{yes}", "Monday", "奇数", "да", "triangle ABC", "isosceles", "does not exist"],
    "choice": ["A", "C", r"\text{(B)}", "(D) 12"],
    "ratio": ["3:4", "2:15", "1:2:3", "7:30"],
}  # fmt: skip
PROBLEMS = (
    "Find the value of {g} + 0 when the sides are 41 and 43 and the angle is right.",
    "How many of the numbers from 1 to 41 are larger than {g}?",
    "Let $w = {g}$. Compute $w^2 + 41w$ and simplify.",
)


def universal_keys(draw: random.Random) -> Iterator[str]:
    """Yields answers that mean nothing, or that are 0 times or plus something enormous or tiny."""
    a, n, k = draw.choice((1, 2, 3, r"\pi", 17)), draw.randrange(200, 5000), draw.randrange(8, 40)
    zero = draw.choice(_ZEROS).format(a=a)
    huge = draw.choice(_HUGE).format(n=n, k=k)
    tiny = draw.choice(_TINY).format(n=n)
    yield f"{huge}({zero})"
    yield f"({huge})({zero})+{tiny}"
    yield huge
    yield f"-({huge})"
    yield tiny
    yield f"{huge}-{huge}+{tiny}"
    yield draw.choice(_UNDEFINED)
    yield draw.choice(_FOREIGN)
    yield "0." + "0" * draw.randrange(6, 30)
    yield "0." + "9" * draw.randrange(6, 30)
    yield ",".join(str(value) for value in range(-10, draw.randrange(20, 200)))
    yield r"\{" + ",".join("ABCDEFG"[: draw.randrange(3, 8)]) + r"\}"
    yield " or ".join("ABCDE")
    yield "(A) (B) (C) (D) (E)"
    yield f"({zero})x+({huge})w"


def tailored_keys(gold: str, draw: random.Random) -> Iterator[str]:
    """Yields answers that hold the reference answer beside another one, or nearly are it."""
    other = draw.choice(("41", "w", "-41", r"\frac{41}{43}", r"\text{nothing}", "41,43"))
    if gold not in GOLDS["choice"]:  # behind the letter of a choice stands its text, whatever it is
        hedges = [hedge for hedge in _HEDGES if hedge != "{g} = {b}" or "w" not in other and "n" not in other]
        yield draw.choice(hedges).format(g=gold, b=other)  # `5 = w` states the value of w
    n, a = draw.randrange(40, 4000), draw.choice((1, 2, 3))
    zero = draw.choice(_ZEROS).format(a=a)
    if not set(gold) & set("=<>,;:&(ABCDаяеиму奇") and r"\text" not in gold and not gold[:2].isalpha():
        yield f"{gold}+{draw.choice(_TINY).format(n=n)}"
        yield f"({gold})(1+{draw.choice(_TINY).format(n=n)})"
        yield f"{gold}+e^{{{n}}}({zero})+w^2"
        yield f"{gold}+41"
        yield f"-({gold})"
    letter = draw.choice(list(_LOOKALIKES))
    if letter in gold and not set("\\=") & set(gold) and letter not in "10":
        yield gold.replace(letter, _LOOKALIKES[letter])
    yield gold + draw.choice("#α&¬")


def responses(count: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Yields (response, gold); none is correct."""
    golds = [gold for group in GOLDS.values() for gold in group]
    made = 0
    while made < count:
        gold = draw.choice(golds)
        keys = list(universal_keys(draw)) + list(tailored_keys(gold, draw))
        answers = [rf"Therefore the answer is $\boxed{{{key}}}$." for key in keys]
        other = "41"
        answers += [
            rf"\boxed{{{gold}}} and \boxed{{{other}}}",
            rf"\boxed{{{gold}}}, \boxed{{{other}}}",
            rf"$\boxed{{{gold}}}$ no, $\boxed{{{other}}}$",
            rf"\boxed{{{gold}}}. Wait. \boxed{{{other}}}",
            rf"<think>\boxed{{{gold}}}",
            rf"<think>\boxed{{{gold}}}</think> I am not sure.",
            rf"\boxed{{{other}}}<|im_end|>\boxed{{{gold}}}",
            rf"\boxed{{{other}}} and not \boxed{{{gold}}}",
            rf"The answer is not \boxed{{{gold}}}",
            draw.choice(PROBLEMS).format(g=gold),
        ]
        for answer in draw.sample(answers, min(len(answers), count - made)):
            made += 1
            yield answer, gold
