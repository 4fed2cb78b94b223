"""Generated problems: correct solutions, the misconceptions' incorrect ones, splits, and the shares of examples."""

import re
from collections import Counter

import pytest

from nft_jax.data.arithmetic import KINDS, all_problems, draw_examples, incorrect_solution, misconception_agrees, split
from nft_jax.data.files import Problem


@pytest.fixture(scope="module")
def problems():
    return all_problems(6)


def results_of(solution):
    """The numbers of `1,5,\\boxed{4}`: [1, 5, 4]."""
    *running, boxed = solution.split(",")
    return [int(text) for text in running] + [int(re.fullmatch(r"\\boxed\{(-?\d+)\}", boxed).group(1))]


def expected_results(problem, *, incorrect):
    """The intermediate results by Python's arithmetic on the text, or by the rule of the misconception."""
    a, b, c, *d = re.findall(r"\d+", problem.problem)
    if problem.kind == "linear":
        solved = [x for x in range(-200, 201) if int(a) * x + int(b) == int(c)]
        return [int(c) - int(b), int(c) - int(b) - int(a)] if incorrect else [int(c) - int(b), *solved]
    d = d[0]
    steps = {
        ("chain", False): [f"{a}-{b}", f"{a}-{b}+{c}", f"{a}-{b}+{c}-{d}"],
        ("chain", True): [f"{c}-{d}", f"{b}+({c}-{d})", f"{a}-({b}+({c}-{d}))"],
        ("precedence", False): [f"{b}*{c}", f"{a}+{b}*{c}", f"{a}+{b}*{c}-{d}"],
        ("precedence", True): [f"{a}+{b}", f"({a}+{b})*{c}", f"({a}+{b})*{c}-{d}"],
    }
    return [eval(step) for step in steps[problem.kind, incorrect]]


def test_all_problems_has_the_examples_of_the_docstring():
    by_text = {problem.problem: problem for problem in all_problems(6)}
    problem = by_text["3-2+4-1="]
    assert problem == Problem("3-2+4-1=", "4", r"1,5,\boxed{4}", "chain", "chain:3-2+4-1=")
    assert incorrect_solution(problem) == r"3,5,\boxed{-2}"
    assert by_text["2+3*4-1="].solution == r"12,14,\boxed{13}"
    assert incorrect_solution(by_text["2+3*4-1="]) == r"5,20,\boxed{19}"
    assert by_text["2x+7=15,x="].solution == r"8,\boxed{4}"
    assert incorrect_solution(by_text["2x+7=15,x="]) == r"8,\boxed{6}"


@pytest.mark.parametrize("largest", [2, 6, 9])
def test_all_problems_has_every_problem_once(largest):
    problems = all_problems(largest)
    assert Counter(p.kind for p in problems) == {
        "chain": largest**4,
        "precedence": largest**4,
        "linear": 8 * 8 * 4 * largest,
    }
    assert len({p.problem for p in problems}) == len({p.id for p in problems}) == len(problems)
    assert problems == all_problems(largest)


def test_all_problems_solutions_are_correct(problems):
    for problem in problems:
        assert results_of(problem.solution) == expected_results(problem, incorrect=False), problem
        assert problem.answer == str(results_of(problem.solution)[-1])


def test_incorrect_solution_follows_the_misconception(problems):
    for problem in problems:
        assert results_of(incorrect_solution(problem)) == expected_results(problem, incorrect=True), problem


def test_misconception_agrees_exactly_where_documented(problems):
    for problem in problems:
        a, b, c, *d = map(int, re.findall(r"\d+", problem.problem))
        documented = {
            "chain": lambda a, b, c, d: c == d[0],
            "precedence": lambda a, b, c, d: c == 1,
            "linear": lambda a, b, c, d: a == 2 and (c - b) // a == 2,
        }[problem.kind](a, b, c, d)
        assert misconception_agrees(problem) == documented, problem
        assert documented == (results_of(incorrect_solution(problem))[-1] == int(problem.answer))


def test_all_problems_writes_negative_results_with_a_sign(problems):
    assert any("-" in p.answer for p in problems)
    assert any(p.solution.startswith("-") for p in problems)


def test_split_is_disjoint_complete_and_about_80_10_10(problems):
    parts = split(problems)
    assert list(parts) == ["train", "validation", "test"]
    texts = {name: {p.problem for p in part} for name, part in parts.items()}
    assert sum(map(len, texts.values())) == len(problems)
    assert set().union(*texts.values()) == {p.problem for p in problems}
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(len(parts[name]) / len(problems) - share) < 0.02
        assert {p.kind for p in parts[name]} == set(KINDS)


def test_split_depends_on_the_text_only(problems):
    small, large = split(problems[::-3]), split(all_problems(7))
    for name, part in small.items():
        assert {p.problem for p in part} <= {p.problem for p in large[name]}
    # These numbers may only change with a new default experiment, because its held-out problems change.
    assert {name: len(part) for name, part in split(problems).items()} == {
        "train": 3307,
        "validation": 425,
        "test": 396,
    }


@pytest.mark.parametrize("share", [0.0, 0.35, 0.65, 1.0])
@pytest.mark.parametrize("size", [1, 1000, 3001])
def test_draw_examples_has_exact_shares_and_even_kinds(share, size):
    problems = all_problems(9)  # where kinds differ in size
    kind_of = {p.problem: p.kind for p in problems}
    answer_of = {p.problem: p.answer for p in problems}
    examples = draw_examples(problems, size=size, incorrect_share=share, seed=0)
    incorrect = [prompt for prompt, response in examples if str(results_of(response)[-1]) != answer_of[prompt]]
    assert len(examples) == size
    assert len(incorrect) == round(size * share)
    for prompts in ([prompt for prompt, _ in examples], incorrect):
        counts = [sum(kind_of[p] == kind for p in prompts) for kind in KINDS]
        assert max(counts) - min(counts) <= 1


def test_draw_examples_mixes_correct_and_incorrect_solutions(problems):
    by_text = {p.problem: p for p in problems}
    examples = draw_examples(problems, size=3000, incorrect_share=0.5, seed=0)
    is_incorrect = []
    for prompt, response in examples:
        correct, incorrect = by_text[prompt].solution, incorrect_solution(by_text[prompt])
        assert response in (correct, incorrect)
        is_incorrect.append(response == incorrect != correct)
    assert 0.4 < sum(is_incorrect[:300]) / 300 < 0.6
    assert {by_text[prompt].kind for prompt, _ in examples[:30]} == set(KINDS)


def test_draw_examples_is_a_function_of_its_seed(problems):
    first = draw_examples(problems, size=500, incorrect_share=0.65, seed=0)
    assert first == draw_examples(problems, size=500, incorrect_share=0.65, seed=0)
    assert first != draw_examples(problems, size=500, incorrect_share=0.65, seed=1)
    assert sorted(first) != first


def test_draw_examples_uses_the_given_problems_only(problems):
    train = split(problems)["train"]
    held_out = {p.problem for name in ("validation", "test") for p in split(problems)[name]}
    assert not held_out & {prompt for prompt, _ in draw_examples(train, size=20_000, incorrect_share=0.65, seed=0)}


def test_arithmetic_errors_name_the_values():
    with pytest.raises(ValueError, match="largest operand is 1; .* between 2 and 20"):
        all_problems(1)
    with pytest.raises(ValueError, match="is of kind ''; .* chain, precedence, linear"):
        incorrect_solution(Problem("1+1=", "2"))
    with pytest.raises(ValueError, match="'1\\+1=' is not an arithmetic problem of kind 'chain'"):
        incorrect_solution(Problem("1+1=", "2", kind="chain"))
    with pytest.raises(ValueError, match="incorrect_share 65"):
        draw_examples(all_problems(2), size=10, incorrect_share=65, seed=0)
    with pytest.raises(ValueError, match="0 problems"):
        draw_examples([], size=10, incorrect_share=0.5, seed=0)
    agreeing = [p for p in all_problems(2) if misconception_agrees(p)]
    with pytest.raises(ValueError, match="agrees with the correct answer in all"):
        draw_examples(agreeing, size=10, incorrect_share=0.5, seed=0)
    assert len(draw_examples(agreeing, size=10, incorrect_share=0.0, seed=0)) == 10
