"""`math`: which answers are the same and which differ, and where it finds them; `check_reference`."""

import re

import pytest

from nft_jax.verify import Pool, check_reference, grade
from nft_jax.verify.extract import TAIL_CHARACTERS
from verify.agreement import measure_agreement, read_rows

# Each line holds ways to write one answer. Each pair of them is correct, in both directions.
SAME = [
    ["5", "5.0", "05", "+5", "5.", r"\boxed{5}", "$5$", "5$", "x=5", "x = 5", "5 = x",
     r"5\text{ cm}", r"5\mathrm{~cm}", "5 cm", r"\text{5}",
     r"\left(5\right)", "{5}", "10/2"],
    [r"72^\circ", r"72^{\circ}", "72°", r"72\text{ degrees}", "72"],
    [r"500\text{ cents}", r"\$5", "5 dollars", r"\$5.00", r"5\text{ USD}"],
    ["-1/2", r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{1}{-2}", r"-\dfrac12", r"-\tfrac 12", "-0.5", "-.5",
     "−0.5", r"-\frac{2}{4}"],
    [r"12\frac{3}{5}", r"12 \frac{3}{5}", "12 3/5", "12.6", "63/5", r"\frac{63}{5}", "12.60"],
    ["1,000,000", "1000000", r"1{,}000{,}000", r"1,\!000,\!000", r"1\,000\,000", "1 000 000", "10^6", "10^{6}",
     "1 million"],
    [r"\frac{1}{3}", "1/3", r"0.\overline{3}", "0.33333333"],
    ["50%", r"50\%", "50 percent", r"50\text{ percent}", "50 pct"],
    ["0.25", r"25\%", "1/4"],
    [r"\sqrt{8}", r"2\sqrt{2}", r"2\sqrt2", "2sqrt(2)", r"\frac{4}{\sqrt{2}}", "2√2", "8^{1/2}",
     r"2 \cdot \sqrt{2}", r"\sqrt{}{8}"],
    [r"\frac{\pi}{2}", r"\pi/2", "pi/2", "π/2", r"\frac12\pi", r"0.5\pi", r"\frac{1}{2} \cdot \pi"],
    ["e^{16}", "exp(16)", r"\exp(16)", "e^16", r"e^{8} \cdot e^8", r"\mathrm{e}^{16}"],
    [r"\frac{1}{1+\sqrt{2}}", r"\sqrt2-1", "-1+√2"],
    ["x^2+2x+1", "(x+1)^2", "1+2x+x^2", "x*x + 2*x + 1", "y=x^2+2x+1"],
    [r"\frac{x^2-1}{x-1}", "x+1"],
    [r"\frac{3 m}{2}-1", r"\frac{3m}{2} - 1", "1.5m-1"],
    ["2^{n+1}", r"2\cdot2^n", "2*2^{n}"],
    [r"\sin 2x", r"2\sin x\cos x", r"2 \cos(x) \sin(x)"],
    ["3+4i", "4i+3", r"4\mathrm{i}+3"],
    ["(1,2)", "(1, 2)", r"\left(1,2\right)", r"\left( 1, \frac{4}{2} \right)", "1 < x < 2", r"x \in (1,2)"],
    ["(3, 1)", "(x,y)=(3,1)", "(x, y) = (3, 1)"],
    [r"\sqrt{x^3}", r"x\sqrt{x}"],
    [r"\sqrt{x^2}", "|x|"],
    ["[1,2)", r"\left[1, 2\right)", r"1 \le x < 2", r"x\in[1,2)", "[1.0,2)"],
    [r"\{1,2,3\}", r"\{3,2,1\}", r"\left\{1,2,3\right\}", "{1,2,3}", "1, 2, 3", r"1, 2 \text{ and } 3",
     "3 and 1 and 2", "1;2;3", "x=1,2,3"],
    [r"1\pm\sqrt{2}", r"1+\sqrt2, 1-\sqrt2", r"\{1-\sqrt2, 1+\sqrt2\}", r"x = 1 \pm \sqrt{2}"],
    [r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)", r"(-\infty, 1) \cup (2, +\infty)", "(-∞,1)∪(2,∞)"],
    [r"x\ge5", "x >= 5", r"5 \leq x", r"[5,\infty)", r"x \geqslant 5"],
    ["x+y=3", "2x+2y=6", "y = 3-x", "x + y - 3 = 0"],
    ["x=1, y=2; x=3, y=4", r"x=1, y=2 \text{ and } x=3, y=4"],
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & \frac{8}{2} \end{bmatrix}"],
    ["C", "(C)", r"\text{C}", r"\textbf{(C)}", r"\mathrm{C}", "c"],
    [r"\text{even}", "even", "Even", r"\textbf{even}", "even."],
    [r"\emptyset", r"\{\}", r"\varnothing"],
    ["x+y>3", "2x+2y>6", "3-x<y", "-x-y<-3"],
    ["31", "(" * 30 + "1" + "+1)" * 30],  # this would never end if brackets were read twice
    ["3:4", r"\frac34", "3 : 4"],
    ["1:2:3", "1 : 2 : 3"],
    ["2^{100}", "1267650600228229401496703205376"],
    ["|-3|", "3", r"\left|-3\right|", r"\lvert -3 \rvert"],
    ["5!", "120", r"\binom{16}{2}"],
    [r"\log_2 8", "3", r"\log_{2}{8}"],
    [r"\arctan 1", r"\tan^{-1}(1)", r"\frac{\pi}{4}"],
    [r"\lfloor 2.5 \rfloor", "2"],
    ["x_1+x_2", "x_2+x_{1}"],
    [r"1.5\times10^3", r"1500", r"1.5 \cdot 10^{3}"],
]  # fmt: skip

# The first is the reference answer; all others are incorrect.
DIFFERENT = [
    ["5", "6", "-5", "50", "5.0001", "5x", "(5,5)", "5,6", "x=6", r"\frac{5}{2}", "A", r"5\sqrt{2}"],
    ["4", r"4\sqrt(2)", r"4\sqrt{2}", "4t", "4i", "4^2", "4!"],
    [r"4\sqrt{2}", "4", r"\sqrt2", r"4+\sqrt2", "5.66", r"4\sqrt{3}"],
    ["2^{-99}", "2^{-98}", "2^{99}", "0", "2^{-100}"],
    [r"\frac{1}{2004!}", r"\frac{1}{2006!}", "0", r"\frac{1}{2005!}"],
    [r"\frac{1}{3}", "0.333", "0.3333334", "0.333333333333333333334", "0.3"],
    [r"\pi", "3.14", "3.1415926", "22/7", r"2\pi"],
    ["(1,2)", r"\{1,2\}", "(2,1)", "[1,2]", "(1,2]", "(1,2,3)", "12", "2,1"],
    [r"\{1,2\}", "(1,2)", "[1,2]", r"\{1,3\}", r"\{1\}", r"\{1,2,3\}", "1"],
    ["[0,9)", "(0,9)", "[0,9]", "[0,1)", r"\{0,9\}", "0 < x < 9"],
    ["x^2=-1", "x^2=-2", "1=1", "x=-1"],
    ["1=1", "2=2", "x=x", "1=2"],
    ["x=1", "y=1", "x=2"],
    ["2x+z=1", "1", "2x+z"],
    ["x>5", r"x\ge5", "x<5", "5>x", r"[5,\infty)"],
    ["x<1", "x>-1", "-x<1"],
    ["x+y>3", "-x-y>-3", "x+y<3", r"x+y\ge3"],
    ["(1,234)", "1234", "1.234"],
    ["0.1", "0.01", "1", "10"],
    [r"\pm 2", "2", "-2"],
    ["32349", "32, 349"],
    ["9999999999999999", "10000000000000000"],
    ["12345678901234567890123", "12345678901234567890124"],
    ["1", "0.99999999", "1.0000001", "e^{0.0000001}"],
    [r"\sqrt{x^2}", "x", "-x"],
    ["1:2:3", "1:3:2", "1/6"],
    ["(1,2),(3,4)", "(1,4),(3,2)", "(1,2)", "1,2,3,4"],
    ["x=1, y=2; x=3, y=4", "x=1, y=4; x=3, y=2"],
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}",
     r"\begin{pmatrix}1&2&3&4\end{pmatrix}"],
    ["A", "B", r"\text{B}", "AB"],
    [r"\text{odd}", "even"],
    ["5000000", "5", "5 thousand"],
    ["f(x)", "f(y)", "g(x)"],
    ["3n+1 for any integer n", "3n+4 for any integer n", r"3n+1 \text{ for any integer } n \in q", r"3n+1 \bmod w"],
    ["1:2:3", r"1\%:2:3"],
    ["1", r"(\tan^2\pi-\sec^2\pi+1)^{0}"],
    [r"\sqrt{x}", r"x=\sqrt{x}"],
]  # fmt: skip


def boxed(answer: str) -> str:
    return rf"So the answer is $\boxed{{{answer}}}$."


@pytest.mark.parametrize("ways", SAME, ids=lambda ways: ways[0])
def test_math_accepts_all_ways_to_write_an_answer(ways):
    for gold in ways:
        for given in ways:
            verdict = grade(boxed(given), gold)
            assert verdict.status == "correct", (gold, given, verdict)


@pytest.mark.parametrize("ways", DIFFERENT, ids=lambda ways: ways[0])
def test_math_rejects_answers_that_differ(ways):
    for given in ways[1:]:
        assert grade(boxed(given), ways[0]).status == "incorrect", given
        assert grade(boxed(ways[0]), given).status in ("incorrect", "unparsed"), given


# Some ways are lenient with units, percent or unnamed variables, so only the first of each line is compared.
NUMBERS = [ways[0] for ways in SAME]


def test_math_rejects_answers_of_other_lines():
    accepted = [(a, b) for a in NUMBERS for b in NUMBERS if a != b and grade(boxed(a), b).status == "correct"]
    three = {"|-3|", r"\log_2 8"}
    assert {*accepted} <= {(a, b) for a in {*three, "x+y=3"} for b in three}


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"so $\boxed{1}$ and $\boxed{2}$", "1; 2"),
        (r"\boxed{1}, \boxed{2}, \boxed{1}", "2; 1"),
        (r"\boxed{3} apples and \boxed{4} pears", "3; 4"),
        (r"\boxed{1} is not it, nor is any of the other things and so \boxed{2}", "2"),
        (r"\boxed{1}. The final answer is $2$. I hope it is correct.", "2"),
        (r"The final answer is $2$. Hence \boxed{1}", "1"),
        ("The answer is 26.", "26"),
        ("the answer is -3.5 dollars", "-3.5 dollars"),
        ("The answer is: **7**", "7"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("16*2=32\nA: 26", "26"),
        ("so she has 5\n#### 1,234", "1,234"),
        ("so $x=2$ and $y = 3$.", "x=2; y = 3"),
        ("We get $x=2$. So $y = 3$.", "y = 3"),
        (r"Therefore \(x \ge 5\) holds.", r"x \ge 5"),
        (r"Hence \[ \frac{1}{2} \]", r"\frac{1}{2}"),
        ("We had 12 of them, then 7.", "7"),
        ("it costs $5 and then 1,000.99m²", "1,000.99"),
        ("所以总共有3 + 10 = 13只鸟。", "13"),
        ("比例为13/28", "13/28"),
        ("so the probability is 1/3.", "1/3"),
        ("The roots are 2 and 3.", "2 and 3"),
        ("所以答案选C。", "C"),
        ("<answer>The answer is 41.</answer>", "41"),
        (
            r"\boxed{\left\{\begin{array}{l}x=1\\y=2\end{array}\right.}",
            r"\left\{\begin{array}{l}x=1\\y=2\end{array}\right.",
        ),
        (r"so it is \frac{2}{5} 吨", r"\frac{2}{5}"),
        ("AZYUK2A", "AZYUK2A"),
        ("I do not know.", "I do not know."),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("x^2 + 1", "x^2 + 1"),
        ("C", "C"),
        (r"<think>\boxed{1}</think> it is \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> nothing certain can be said about that, I am afraid", None),
        (r"\boxed{1} is wrong, \boxed{2} is not correct", None),
        ("There are 5 of them, not 7.", "5"),
        ("I got 5. But 5 is wrong, it is 7", "7"),
        ("it is 7!x", "7!x"),
        ("The correct option is **(B)**.", "(B)"),
        ("The answer is 7 because 3+4=7", "7"),
        (r"$x=\boxed{1}$ and $x=\boxed{2}$", "1; 2"),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed{}", None),
        ("", None),
        ("   ", None),
    ],
)
def test_math_extracts_the_final_answer(response, extracted):
    verdict = grade(response, "42")
    assert verdict.extracted == extracted
    assert verdict.status == ("unparsed" if extracted is None else "incorrect")


def test_math_reads_boxes_anywhere_and_other_answers_only_at_the_end():
    behind = "x" * TAIL_CHARACTERS
    assert grade(r"\boxed{5}" + behind, "5").status == "correct"
    assert grade("The answer is 5. " + behind, "5").status == "unparsed"
    assert grade(behind * 2000 + r"\boxed{5}", "5").status == "correct"
    assert grade(rf"\boxed{{{'1, ' * TAIL_CHARACTERS} 5}}", "5").status == "unparsed"  # the box begins before the end


def test_math_does_not_parse_unknown_commands_but_accepts_equal_text():
    strange = r"\foo{\bar}{7}"
    assert grade(boxed(strange), "7").status == "unparsed"
    assert grade(boxed(strange), strange).status == "correct"
    assert grade(boxed(strange.replace("{7}", "{ 7 }")), strange).status == "correct"


@pytest.mark.parametrize(
    ("given", "gold", "options", "status"),
    [
        ("2, 1", "1, 2", {}, "correct"),
        ("2, 1", "1, 2", {"ordered": True}, "incorrect"),
        ("1, 2", "1, 2", {"ordered": True}, "correct"),
        (r"\{2,1\}", r"\{1,2\}", {"ordered": True}, "correct"),
        ("0.33", "1/3", {}, "incorrect"),
        ("0.33", "1/3", {"precision": 2}, "correct"),
        ("0.34", "1/3", {"precision": 2}, "incorrect"),
        ("(0.6, 2.6667]", r"(\frac35, \frac83]", {"precision": 2}, "correct"),
        (r"\sqrt{17}", "4.12311", {"precision": 5}, "correct"),
        (r"\sqrt{17}", "4.12312", {"precision": 5}, "incorrect"),
        ("4.12311", r"\sqrt{17}", {}, "incorrect"),
        ("0.333333", "1/3", {"precision": 7}, "incorrect"),
        ("1.22", "1,22", {}, "incorrect"),
        ("1.22", "1,22", {"decimal_comma": True}, "correct"),
        ("1.23", "1,22", {"decimal_comma": True}, "incorrect"),
        ("t+2", "2x", {"any_names": True}, "incorrect"),
        ("2t+s", "2x+a", {"any_names": True}, "correct"),
        ("2t", "2x", {}, "incorrect"),
    ],
)
def test_math_options(given, gold, options, status):
    assert grade(boxed(given), gold, **options).status == status


def test_math_with_an_unknown_option_is_an_error():
    verdict = grade("1", "1", strictness=5)
    assert verdict.status == "error"
    assert "strictness" in verdict.reason


REFERENCES = [
    "5",
    r"\frac12",
    r"$\{1,2\}$",
    r"The answer is $\boxed{7}$.",
    r"\text{odd}",
    "C",
    "4 \\text{ cm}",
    "x=1,y=2",
    r"\int_0^1 x dx",
]


@pytest.mark.parametrize("answer", REFERENCES)
def test_check_reference_accepts_usable_references(answer):
    assert check_reference(answer) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (r"\frac{1}{", "cannot be read"),
        (r"\foo{x}", "cannot be read.*foo"),
        ("x" * 3000, "3000 characters; at most 2000"),
        (r"\frac{1}{0}", "has no value: a division by 0"),
        ("(1,2", "cannot be read"),
    ],
)
def test_check_reference_names_the_fault(answer, reason):
    assert re.search(reason, check_reference(answer))


def test_math_gives_the_same_verdicts_with_any_number_of_workers():
    items = [(boxed(given), ways[0]) for ways in SAME + DIFFERENT for given in ways]
    expected = [grade(*item)[:2] for item in items]
    for workers in (1, 3):
        with Pool("math", workers) as pool:
            for order in (items, items[::-1]):
                verdicts = [verdict[:2] for verdict in pool.grade(order)]
                assert (verdicts if order is items else verdicts[::-1]) == expected


# Real cases; their synthetic twins are above.


def _real_rows(data_folder, name: str) -> list[dict]:
    if not (data_folder / "verifier" / name).exists():
        pytest.skip(f"no verifier/{name} in {data_folder}: set NFT_JAX_DATA to the folder that holds verifier/")
    return read_rows(data_folder, name)


def test_math_agrees_with_real_cases(data_folder):
    _real_rows(data_folder, "cases.jsonl")
    cases, disagreements = measure_agreement(data_folder)
    assert len(cases) - len(disagreements) >= 376, [case["id"] for case in disagreements]
    assert not [case for case in disagreements if case["status"] in ("error", "timeout")]
    assert not [case["id"] for case in disagreements if not case["expected"]], "false positives"


def test_math_agrees_on_real_responses(data_folder):
    rows = _real_rows(data_folder, "model_outputs.jsonl")
    verdicts = [grade(row["response"], row["gold"]) for row in rows]
    agreed = sum((verdict.status == "correct") == row["correct"] for verdict, row in zip(verdicts, rows, strict=True))
    assert agreed >= 0.997 * len(rows)
    assert not any(verdict.status == "error" for verdict in verdicts)


def test_check_reference_accepts_real_references(data_folder):
    rows = _real_rows(data_folder, "model_outputs.jsonl")
    assert {row["gold"]: reason for row in rows if (reason := check_reference(row["gold"]))} == {}


@pytest.mark.parametrize(
    ("given", "gold", "correct"),
    [
        (r"4.5 \times 10^{33}", "4.5e33", True),
        ("4.50E+33", "4.5e33", True),
        ("4.5e32", "4.5e33", False),
        ("4.4e33", "4.5e33", False),
        ("1e-3", "0.001", True),
        ("2e^3", "2e^{3}", True),
        ("2e3", "2e^3", False),
        ("52_{8}", "52_8", True),
        ("(52)_8", "52_8", True),
        ("52", "52_8", False),
        ("52_9", "52_8", False),
        ("53_8", "52_8", False),
        ("37_8", "-37_8", False),
        ("x_{12}", "x_12", True),
        ("x_2", "x_1", False),
        (r"-\frac13", "-1./3", True),
        ("-1.5", "-3./2", True),
        (r"2^n(n-2)+1", "(n-2) 2^{n}+1", True),
        (r"(n-2) 2^{n-1}+1", "(n-2) 2^{n}+1", False),
        (r"\left\lfloor \sqrt{n-1} \right\rfloor", r"\lfloor\sqrt{n-1}\rfloor", True),
        (r"1+\lfloor\log_2 n\rfloor", r"\left\lfloor\log _{2} n\right\rfloor+1", True),
        (r"\lfloor \sqrt{n} \rfloor", r"\lfloor\sqrt{n-1}\rfloor", False),
        (r"\lceil \sqrt{n} \rceil", r"\lfloor\sqrt{n}\rfloor", False),
        (r"\lfloor 3.7 \rfloor", "3", True),
    ],
)
def test_math_reads_scientific_numbers_bases_and_steps(given, gold, correct):
    assert (grade(f"\\boxed{{{given}}}", gold).status == "correct") == correct
    assert check_reference(gold) is None
