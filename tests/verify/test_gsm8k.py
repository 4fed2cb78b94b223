"""`gsm8k`: the last number, compared exactly."""

import json
import random
import sys
import unicodedata

import pytest

from nft_jax.verify import Pool, grade
from nft_jax.verify.gsm8k import any_number, gsm8k, last_number


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("16 - 3 = <<16-3=13>>13 eggs\nA: 26", "26"),
        ("so 5.\n#### 1,234", "1234"),
        ("#### $1,234.50 (not 7)", "1234.50"),
        ("The answer is 15 (15 = 3*5).", "15"),
        ("#### 15 (3*5=15)", "15"),
        ("#### 18km", "18"),
        ("#### 18k", None),
        ("#### at least 5", None),
        ("#### 5 hours and 30 minutes", None),
        ("It takes 5 hours and 30 minutes.", None),
        ("#### $5 and 6 cents", None),
        ("5 x 6", None),
        ("so 5 times 6", None),
        ("first #### 3\nthen #### 4\nbecause 2 + 2", "4"),
        (r"it is \boxed{18} dollars, not 19", "18"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"\boxed{\text{none}} of 7", "7"),
        ("The answer is 26.", "26"),
        ("She has $5.", "5"),
        ("She owes $-5", "-5"),
        ("She owes -$5", "-5"),
        ("16-3", None),
        ("16 - 3", None),
        ("it is -3", "-3"),
        ("it is −3", "-3"),
        ("25%", "25"),
        ("1/2 of it", "1/2"),
        (".5", ".5"),
        (r"1{,}000,\!000", "1000000"),
        ("1,2", "2"),
        ("x2", None),
        ("#### 18 apples (in 2 baskets)", "18"),
        ("#### 12 cm^2", "12"),
        ("#### 3 1/2", "7/2"),
        ("#### - 5", "-5"),
        ("#### ٤٢", "42"),
        ("#### １２", "12"),
        ("#### 1.5 million", "1500000"),
        ("#### twelve", "12"),
        ("#### 12-3", None),
        ("it is 1/3.", "1/3"),
        ("#### 5/7/2024", None),
        ("between 3 and 5", None),
        ("5²", None),
        ("5:30", None),
        ("The answer is 12. It took 3 steps.", "12"),
        ("#### 12^2", None),
        ("#### 5 to 6", None),
        ("#### 5 or 6", None),
        (r"\boxed{7\frac12}", "15/2"),
        ("7e2", None),
        ("minus 7", None),
        ("there are 5, not 7", "5"),
        ("7 is wrong", None),
        ("no number", None),
        ("", None),
        ("####", None),
    ],
)
def test_last_number(response, expected):
    assert last_number(response) == expected


@pytest.mark.parametrize(
    ("response", "answer", "status"),
    [
        ("A: 26", "26", "correct"),
        ("A: 26.0", "26", "correct"),
        ("A: 26.5", "26", "incorrect"),
        ("A: -26", "26", "incorrect"),
        ("A: 26", "so 2 + 24 = 26\n#### 26", "correct"),
        ("$1,000", "1000", "correct"),
        ("1/2", "0.5", "correct"),
        ("0.1", "0.10", "correct"),
        ("0.3333333333", "1/3", "incorrect"),
        ("9007199254740993", "9007199254740992", "incorrect"),
        ("1/0", "1", "incorrect"),
        ("1/0", "1/0", "incorrect"),
        ("9" * 101, "9" * 101, "correct"),
        ("9" * 1001, "9" * 1001, "incorrect"),
        ("5", "five", "incorrect"),
        ("five", "5", "unparsed"),
        ("<think>#### 5", "5", "unparsed"),
        ("<think>#### 5</think>#### 6", "6", "correct"),
    ],
)
def test_gsm8k_statuses(response, answer, status):
    assert grade(response, answer, grader="gsm8k").status == status


@pytest.mark.parametrize(
    ("response", "answer", "status", "extracted"),
    [
        ("26, so 3 are left", "26", "correct", "26"),
        ("26 - 3 = 23", "26", "correct", "26"),
        (r"\boxed{3} of $1,000", "#### 1000", "correct", "1000"),
        ("3 or 4", "5", "incorrect", "4"),
        ("five", "5", "unparsed", None),
        ("5", "five", "incorrect", "5"),
    ],
)
def test_any_number_accepts_the_reference_anywhere(response, answer, status, extracted):
    verdict = grade(response, answer, grader="any_number")
    assert (verdict.status, verdict.extracted) == (status, extracted)


def test_gsm8k_through_a_pool():
    items = [(f"so {index} - 1 = {index - 1}\n#### {index:,}", str(index)) for index in range(0, 5000, 7)]
    with Pool("gsm8k") as pool:
        assert {verdict.status for verdict in pool.grade(items)} == {"correct"}


def test_gsm8k_agrees_on_real_responses(data_folder):
    path = data_folder / "verifier" / "model_outputs.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [
        row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if row["format"].startswith("A:")
    ]
    agreed = [(grade(r["response"], r["gold"], grader="gsm8k").status == "correct") == r["correct"] for r in rows]
    assert len(agreed) > 3000
    assert all(agreed)


def test_gsm8k_reads_the_digits_of_every_script():
    """Unicode has digits of more than sixty scripts, and characters such as ² that are digits without being decimal."""
    digits = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isdigit() or c.isdecimal() or c.isnumeric()]
    draw = random.Random(3)
    for _ in range(3000):
        number = "".join(draw.choices([*digits, "-", ".", ",", "/", " ", "$", "٫", "٬"], k=draw.randint(1, 8)))
        for form in ("%s", "#### %s", "\\boxed{%s}", "The answer is %s."):
            gsm8k(form % number, number), any_number(form % number, number)  # none raises
    for zero in (c for c in digits if unicodedata.decimal(c, None) == 0):
        assert gsm8k(f"#### {chr(ord(zero) + 4)}{chr(ord(zero) + 2)}", "42") == ("correct", "42")
