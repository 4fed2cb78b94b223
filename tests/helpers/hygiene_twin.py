"""Hygiene by its definition: every problem is compared with every other one."""

from collections.abc import Sequence

from nft_jax.data import hygiene
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import Removal
from nft_jax.data.normal_form import answer_key, normal_form, normalize


def find_match(problem: Problem, others: Sequence[Problem]) -> tuple[str, str] | None:
    """Returns the id of the first of the closest problems of an evaluation set, and how it matches."""
    key = normal_form(problem.problem)
    for kind, matches in (
        ("same", lambda other: normal_form(other.problem) == key),
        ("inside", lambda other: is_inside(normal_form(other.problem), key)),
        ("near", lambda other: are_near(other, problem)),
    ):
        for other in others:
            if matches(other):
                return other.id, kind
    return None


def is_inside(part: str, text: str) -> bool:
    """Returns whether a long enough part occurs in a text without cutting a number."""
    places = [place for place in range(len(text)) if text.startswith(part, place)]
    return len(part) >= hygiene.SHORTEST_INSIDE and any(hygiene._occurs_at(text, place, part) for place in places)


def are_near(one: Problem, other: Problem) -> bool:
    """Returns whether two problems have the same numbers and share nine tenths of their shingles."""
    texts = [hygiene._ProblemText(normalize(each.problem)) for each in (one, other)]
    shared, union = texts[0].shingles() & texts[1].shingles(), texts[0].shingles() | texts[1].shingles()
    return texts[0].numbers == texts[1].numbers and 10 * len(shared) >= 9 * len(union)


def find_removals(problems: Sequence[Problem], evaluations: dict[str, Sequence[Problem]]) -> set[Removal]:
    """Returns the removals of `hygiene.clean`, as a set."""
    removals: dict[int, list[Removal]] = {}

    def remaining():
        return [place for place in range(len(problems)) if place not in removals]

    def remove(place, reason, other, match):
        removals[place] = [Removal(problems[place].id, reason, "train", problems[other].id, match)]

    for place, problem in enumerate(problems):
        found = {name: find_match(problem, part) for name, part in evaluations.items()}
        if any(found.values()):
            pairs = [(name, match) for name, match in found.items() if match]
            removals[place] = [Removal(problem.id, "overlap", name, *match) for name, match in pairs]
    keys = [normal_form(problem.problem) for problem in problems]
    answers = [answer_key(problem.answer) for problem in problems]
    left = remaining()
    for place in left:
        others = [other for other in left if keys[other] == keys[place] and answers[other] != answers[place]]
        if others:
            remove(place, "contradiction", others[0], "same")
    for place in remaining():
        earlier = [other for other in remaining() if other < place and keys[other] == keys[place]]
        if earlier:
            remove(place, "duplicate", earlier[0], "same")
    for later in remaining():
        for earlier in remaining():
            near = earlier < later and later not in removals and answers[earlier] == answers[later]
            if near and are_near(problems[earlier], problems[later]):
                remove(later, "near duplicate", earlier, "near")
    return {removal for each in removals.values() for removal in each}
