"""What is said of a run's problems."""

from nft_jax.data.dataset import unreadable_answers
from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable


def table(answers):
    problems = [Problem("?", answer, id=f"mine.jsonl:{line}") for line, answer in enumerate(answers, start=1)]
    return PromptTable(None, None, answers, [], problems, 0)


def test_reference_answers_that_the_grader_can_not_read_are_named():
    tables = {"train": table(["5", r"\frac{1}{2}", r"\zzz{", "(1, 2)", *[r"1/0"] * 4]), "test": table(["7"])}
    (line,) = unreadable_answers("math", tables)
    assert line.startswith("problems  train: of 8 reference answers 5 can't be read by the grader 'math'")
    assert r"(mine.jsonl:3, '\\zzz{': " in line
    assert "mine.jsonl:6" in line
    assert "mine.jsonl:7" not in line
    assert line.endswith("; …)")
    assert unreadable_answers("boxed_exact", tables) == []
