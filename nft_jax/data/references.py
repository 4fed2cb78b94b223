r"""Reference answers that no answer of a model can match: by their writing, or by the form that the prompt asks for.

A reference is graded against itself, written as a model would write it (033 as 33, `$5$` as 5, 1.0 as 1, of a whole
solution its final answer), in each form that its prompt names: `\boxed{5}`, `#### 5` or `Answer: 5`; in any of them if
the prompt names none.
"""

import functools
import re
from collections.abc import Sequence

from nft_jax.verify.extract import final_answer
from nft_jax.verify.grade import GRADERS, grade

FORMS = {r"\boxed": r"\boxed{%s}", "####": "#### %s", "Answer:": "Answer: %s"}
_WHOLE_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0+)?")
_PROSE_WORDS = 12  # a reference with more words is a solution


def check_references(
    grader: str, name: str, ids: Sequence[str], prompts: Sequence[str], answers: Sequence[str], most: int = 3
) -> list[str]:
    """Returns one line if some references of the problems `name` can never be matched; it names the first `most`.

    Graders of your own are not checked: what they call correct is unknown.

    Raises:
      ValueError: if none can be matched, with the same line.
    """
    if grader not in GRADERS:
        return []
    forms = [_find_forms(prompt) for prompt in prompts]
    missed = _find_unmatched(grader, forms, answers)
    if not missed:
        return []
    first = "; ".join(
        f"{ids[i]}: {answers[i][:40]!r}, written {write_plainly(answers[i])[:40]!r}" for i in missed[:most]
    )
    marks = ", ".join(sorted({mark for i in missed for mark in forms[i]}))
    others = {each: len(answers) - len(_find_unmatched(each, forms, answers)) for each in GRADERS if each != grader}
    best = max(others, key=lambda each: others[each])
    line = (
        f"answers   {name}: {len(missed)} of {len(answers)} reference answers can never be matched by the grader "
        f"{grader!r} in the form that the prompts ask for ({marks}): {first}{'; …' * (len(missed) > most)}; "
        f"--config.verify.grader={best} can match {others[best]}"
    )
    if len(missed) == len(answers):
        raise ValueError(f"{line}; --config.data.template=qwen_math asks for \\boxed{{}}")
    return [line]


def write_plainly(answer: str) -> str:
    """Returns a reference as a model writes it: without dollars and needless zeros; of a solution, the final answer."""
    text = answer.strip()
    if "boxed" in text or "$" in text or len(text.split()) > _PROSE_WORDS:
        text = (final_answer(text) or text).strip()
    return _WHOLE_NUMBER.sub(r"\1\2", text) if _WHOLE_NUMBER.fullmatch(text) else text


def _find_forms(prompt: str) -> tuple[str, ...]:
    """Returns the marks of the forms that a prompt names, or of all if it names none."""
    return tuple(mark for mark in FORMS if mark in prompt) or tuple(FORMS)


def _find_unmatched(grader: str, forms: Sequence[tuple[str, ...]], answers: Sequence[str]) -> list[int]:
    @functools.cache
    def can_match(marks, answer):
        written = write_plainly(answer)
        return any(grade(FORMS[mark] % written, answer, grader=grader).status == "correct" for mark in marks)

    return [i for i, answer in enumerate(answers) if not can_match(forms[i], answer)]
