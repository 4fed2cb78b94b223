"""`symbolic`: SymPy and math-verify's LaTeX grammar, for what the exact reader does not read."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hostile_answers import CODE
from nft_jax.verify import Pool, grade
from nft_jax.verify.math import symbolic
from nft_jax.verify.math.normalize import normalize
from nft_jax.verify.math.symbolic import is_harmless

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("given", "gold", "status"),
    [
        (r"\frac{1}{2}", r"\int_0^1 x dx", "correct"),
        (r"\int_0^1 x dx", r"\frac12", "correct"),
        (r"\frac{1}{3}", r"\int_0^1 x dx", "incorrect"),
        ("55", r"\sum_{k=1}^{10} k", "correct"),
        ("54", r"\sum_{k=1}^{10} k", "incorrect"),
        ("24", r"\prod_{k=1}^{4} k", "correct"),
        (r"\lim_{x\to 0} \frac{\sin x}{x}", "1", "correct"),
        ("-2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "correct"),
        ("2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "incorrect"),
        (r"\begin{pmatrix}1&1\\0&1\end{pmatrix}\begin{pmatrix}1&1\\0&1\end{pmatrix}",
         r"\begin{pmatrix}1&2\\0&1\end{pmatrix}", "correct"),
        (r"\begin{pmatrix}1&1\\0&1\end{pmatrix}\begin{pmatrix}1&1\\0&1\end{pmatrix}",
         r"\begin{pmatrix}1&3\\0&1\end{pmatrix}", "incorrect"),
        (r"\int x dx = 1", r"\int x dx = 2", "incorrect"),
        (r"2^{-99} \int_0^1 dx", r"2^{-98} \int_0^1 dx", "incorrect"),
    ],
)  # fmt: skip
def test_math_reads_calculus_and_matrices(given, gold, status):
    assert grade(rf"\boxed{{{given}}}", gold).status == status


def test_math_imports_libraries_when_an_answer_needs_them():
    code = r"""
import sys
from nft_jax.verify import grade
def loaded(): return sorted({"sympy", "mpmath", "math_verify", "antlr4", "jax",
"numpy"} & {n.split(".")[0] for n in sys.modules})
assert grade(r"\boxed{2\sqrt2}", r"\sqrt8").status == "correct"
print(loaded())
assert grade(r"\boxed{2\sin x\cos x}", r"\sin 2x").status == "correct"
print(loaded())
assert grade(r"\boxed{\frac12}", r"\int_0^1 x dx").status == "correct"
print(loaded())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['mpmath']", "['antlr4', 'math_verify', 'mpmath', 'sympy']"]
    assert done.stderr == ""


def test_preload_runs_before_the_first_deadline():
    # SymPy and what it imports take more than 30 MiB, before any answer comes.
    with Pool("math", 1) as hard, Pool("boxed_exact", 1) as easy:
        assert _resident_mib(hard.pids[0]) > _resident_mib(easy.pids[0]) + 30
        assert hard.grade([(r"\boxed{\frac12}", r"\int_0^1 x dx")])[0].status == "correct"


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def test_compare_rejects_relations_without_solutions():
    # math-verify compares the solutions, of which both have none.
    assert symbolic.compare(r"\int x^2 dx=-1", r"\int x^2 dx=-2") is False
    assert symbolic.compare(r"\int x^2 dx=-1", r"\int x^2 dx=-1") is True


def test_compare_is_none_for_what_the_grammar_does_not_read():
    assert symbolic.compare("x", "x") is None  # nothing beyond the exact grammar
    assert symbolic.compare(r"\int", "1") is None
    assert symbolic.compare(r"\int_0^1 x dx", "__import__('os')") is None


@pytest.mark.parametrize("code", CODE)
def test_is_harmless_refuses_code(code):
    assert not is_harmless(normalize(code))


@pytest.mark.parametrize(
    "text",
    [
        "2^{3^{4}}", "2^3^4", "9!!", "(9!)!", "{9}!", "x" * 401, "10^{100000}", "100000!", "(" * 9 + "1" + ")" * 9,
        r"\operatorname{eye}(9)", r"\sum_{k=1}^{99999} k", "a__b", "x.y", "'x'", '"x"', "x@y", "#", "lambda",
        "é", "\x00",
    ],
)  # fmt: skip
def test_is_harmless_refuses_costly_and_foreign_text(text):
    assert not is_harmless(text)


@pytest.mark.parametrize("text", [r"\int_0^1 x^2 dx", r"\sum_{k=1}^{100} k", r"\frac{\sin x}{2}", "x^2+1", "5!"])
def test_is_harmless_accepts_calculus(text):
    assert is_harmless(text)
