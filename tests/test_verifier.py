"""The grading processes of a run: a grader that cannot work is refused before anything is compiled."""

import textwrap

import pytest

from nft_jax.config import VerifyConfig
from nft_jax.verifier import open_verifier

# What the module of a grader holds, and what is said of it; FILE is its path.
BROKEN = {
    "raises when imported": ("\nx = 1 / 0\n", "can't be imported: ZeroDivisionError: division by zero, in FILE:2"),
    "exits": ("import sys\nsys.exit(3)\n", "can't be imported: it exits, by SystemExit: 3, in FILE:2"),
    "exits at once": ("import os\nos._exit(0)\n", "ended while it loaded its grader.* neither exit nor crash"),
    "syntax": ("def mine(a, b)\n    pass\n", "SyntaxError: expected ':', in FILE:1"),
    "one argument": (
        "def mine(a):\n    return True\n",
        r"\(bad_grader.py:1\) has the arguments \(a\), but it is called",
    ),
    "no function": ("x = 1\n", "unknown function 'mine' of module 'bad_grader': known are none"),
    "returns a number": ("def mine(a, b):\n    return 0.5\n", "the grader returned 0.5; for a grader of rewards"),
    "returns nothing": ("def mine(a, b):\n    a == b\n", "the grader returned None; use a bool"),
    "returns a word": (
        "def mine(a, b):\n    return 'right'\n",
        "the grader returned status 'right'; use one of incorrect",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_open_verifier_says_in_one_line_what_is_wrong_with_a_grader(tmp_path, monkeypatch, name):
    source, words = BROKEN[name]
    path = tmp_path / "bad_grader.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    words = f"^config.verify.grader='bad_grader:mine': .*{words.replace('FILE', str(path))}"
    with pytest.raises(ValueError, match=words) as caught, open_verifier(VerifyConfig(grader="bad_grader:mine")):
        pass
    assert "\n" not in str(caught.value)


def test_open_verifier_takes_a_grader_that_fails_on_some_answers(tmp_path, monkeypatch):
    path = tmp_path / "picky_grader.py"
    path.write_text(textwrap.dedent("def mine(a, b):\n    return {'yes': True}[a]\n"))
    monkeypatch.syspath_prepend(tmp_path)
    with open_verifier(VerifyConfig(grader="picky_grader:mine", workers=1)) as verifier:
        verdicts = verifier.pool.grade([("yes", "1"), ("no", "1")])
    assert [verdict.status for verdict in verdicts] == ["correct", "error"]
    assert verdicts[1].reason == f"KeyError: 'no', in {path}:2"


def test_a_grader_prints_errors_visibly(tmp_path, monkeypatch, capfd):
    path = tmp_path / "loud_grader.py"
    path.write_text("import sys\ndef mine(a, b):\n    print(a, file=sys.stderr, flush=True)\n    return True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with open_verifier(VerifyConfig(grader="loud_grader:mine", workers=1)) as verifier:
        verifier.pool.grade([("\x1b[31m", "1")])
    assert "\\x1b[31m\n" in capfd.readouterr().err
