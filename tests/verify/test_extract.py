"""`last_boxed`: which box it finds, balanced braces, and linear time on hostile text; `final_answer` of prose."""

import random
import secrets

import pytest

from helpers import random_prose
from nft_jax.verify import grade
from nft_jax.verify.extract import final_answer, last_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("5", None),
        (r"\boxed 5", None),
        (r"\fbox{5}", None),
        (r"\boxed{5}", "5"),
        (r"so \boxed{5}.", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{\frac{1}{2}} {", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed{1} \boxed{{2}", None),
        (r"}}}\boxed{a b}}}", "a b"),
        ("\\boxed{1\n2}", "1\n2"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("The correct answer is (C) $12$.", "(C) $12$"),
        ("Option C is correct.", "C"),
        ("The final answer is A, not B.", "A"),
        ("It takes 2 1/2 hours.", "2 1/2"),
        ("The ratio is 3:2.", "3:2"),
        ("the price of all of them:42", "42"),
        (r"Thus $n=12$. $\blacksquare$", "n=12"),
        ("on 5/7/2024", "on 5/7/2024"),
        ("It could be 12, 13 or 14.", "12, 13 or 14"),
        ("Thus there are 28 handshakes (8 choose 2).", "28"),
        ("The point is (3, 4).", "(3, 4)"),
        ("Final answer: 42 ✅", "42"),
        ("The answer is 5 dollars and 25 cents.", "5 dollars and 25 cents"),
        ("The answer lies between 3 and 5 if all else fails in this problem.", None),
        ("There are 10! ways to seat all of them around the table.", None),
        ("So the answer must be C.", "C"),
        ("I choose (C).", "(C)"),
        ("So it is 12 or x = 14", "12 or x = 14"),
        ("They sold many boats in 2022, 14 of them in May.", "14"),
        ("It is impossible that the answer is 5.", ""),
        ("The answer is 7. It is false that the answer is 5.", "7"),
        ("### Final Answer\n\n**42**", "42"),
        (r"\boxed{\frac13} \approx \boxed{0.333}", r"\frac13 \approx 0.333"),
        ("Hence the number of days of the trip is 3-5.", "5"),
        ("Thus $AC = 145$. All of it holds, so our answer is correct.", "AC = 145"),
        ("There are 3 boxes with 5 each, so he has 15 apples.", "15"),
        ("So $m = 3$, $n = 4$, and $m+n = 7$.", "m+n = 7"),
        ("So $x+y = 3$ and $x-y = 4$.", "x+y = 3; x-y = 4"),
        ("They will be there at 3:45 PM.", "3:45 PM"),
        ("Thus there are 12 integers $n$ with $(n, 3) = 1$.", "12"),
    ],
)
def test_final_answer_of_prose(response, expected):
    assert final_answer(response) == expected


@pytest.mark.parametrize("make_case", random_prose.KINDS, ids=lambda kind: kind.__name__)
def test_math_finds_answers_in_prose(make_case):
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    cases = [make_case(draw) for _ in range(200)]
    faults = [case for case in cases if (grade(case[0], case[1]).status == "correct") != case[2]]
    assert faults == [], f"seed {seed}"


def _last_boxed_twin(text: str) -> str | None:
    """Returns what the definition says, character by character."""
    start = text.rfind("\\boxed{")
    depth = 0
    for position in range(start + 6, len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + 7 : position]
    return None


def test_last_boxed_agrees_with_its_definition_on_random_text():
    random_ = random.Random(0)
    found = 0
    for _ in range(3000):
        text = "".join(random_.choices(["\\boxed{", "{", "}", "\\", "b", " "], k=random_.randrange(20)))
        assert last_boxed(text) == _last_boxed_twin(text), text
        found += last_boxed(text) is not None
    assert found > 300


@pytest.mark.parametrize("piece", ["{", "}", "\\boxed{", "\\boxed{}", "{}", "\\", "\\boxed{{"])
def test_last_boxed_is_linear_on_hostile_text(piece):
    # A quadratic scan would take hours here; no clock is needed to notice.
    text = "\\boxed{" + piece * (4_000_000 // len(piece))
    assert last_boxed(text) in (None, "")


PIECES = ["1", "1 ", "a", "x", "(", ")", "√", "²", ".", ",", "^", "!", "-", " - ", "=", "$", "**", r"\(", r"\)", "\n"]
PIECES += ["that ", "so ", "and ", "is ", "there are 4 ", r"\approx", r"\boxed{1}", r"\frac{1}", "≈", "1/"]


@pytest.mark.parametrize("piece", PIECES)
def test_final_answer_reads_repeated_pieces_in_one_way(piece):
    # A pattern that can read them in many ways would take years here; no clock is needed to notice.
    for unit in (piece, *(piece + other for other in PIECES)):
        for head, tail in (("", ""), ("2²", "A is 5"), ("there are 4 x that ", ",")):
            text = head + unit * (180 // len(unit)) + tail
            found = final_answer(text)
            # A part of the text, or several parts, joined.
            assert found is None or found in text or "; " in found or r" \approx " in found, text


def test_last_boxed_balances_deep_nesting():
    depth = 500_000
    assert last_boxed("\\boxed{" + "{" * depth + "}" * depth + "}") == "{" * depth + "}" * depth
