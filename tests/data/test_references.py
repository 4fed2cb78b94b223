"""References that a grader can never match are found by their writing and by the form that the prompt asks for."""

import random

import pytest

from nft_jax.data.references import FORMS, check_references, write_plainly
from nft_jax.verify.grade import GRADERS

BOXED = r"{} Put your final answer within \boxed{{}}."
DAPO = 'Solve it.\n\n{}\n\nRemember to put your answer on its own line after "Answer:".'


def check(grader, answers, form=BOXED):
    ids = [f"f:{n}" for n in range(1, len(answers) + 1)]
    return check_references(grader, "train", ids, [form.format("1+1?")] * len(answers), answers)


@pytest.mark.parametrize("seed", range(5))
def test_check_references_finds_golds_that_no_plain_answer_equals(seed):
    draw = random.Random(seed)
    number = draw.randrange(1, 999)
    odd = [f"0{number}", f"${number}$", f"{number}.0", f"We add them up and so the sum of both is \\boxed{{{number}}}."]
    for answer in odd:
        assert write_plainly(answer) == str(number), f"seed {seed}"
        (line,) = check("boxed_exact", ["7", answer, str(number)])
        assert "train: 1 of 3 reference answers can never be matched by the grader 'boxed_exact'" in line
        assert f"f:2: {answer[:40]!r}, written '{number}'" in line
        assert "--config.verify.grader=" in line
    # The advice can be followed.
    assert check("math", ["7", *odd]) == []
    for answer in ("0", "-5", "0.5", "100", "\\frac{1}{2}", "x+1", "(0, 1)", "1,000"):
        assert write_plainly(answer) == answer
        assert check("boxed_exact", [answer]) == []


def test_check_references_names_three_and_counts_all():
    (line,) = check("boxed_exact", ["1", *(f"0{n}" for n in range(5, 10))])
    assert "5 of 6" in line and "f:4" in line and "f:5" not in line and "; …; --config.verify.grader=" in line
    assert line.endswith("can match 6")


@pytest.mark.parametrize("grader", GRADERS)
def test_check_references_by_the_form_of_the_prompt(grader):
    for form in ("{}", BOXED, DAPO, '{} Give the answer after "####".'):
        can = not grader.startswith("boxed_") or "Answer:" not in form and "####" not in form
        if can:
            assert check(grader, ["7", "8"], form) == []
        else:
            with pytest.raises(ValueError, match="2 of 2 .*can match 2; --config.data.template=qwen_math asks for"):
                check(grader, ["7", "8"], form)


def test_check_references_leaves_graders_of_your_own_alone():
    assert check("module:function", ["033"]) == []
    assert set(FORMS) == {"\\boxed", "####", "Answer:"}
