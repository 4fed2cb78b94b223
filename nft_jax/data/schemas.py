"""The layouts of the usual problem files, which are recognized by the fields of their first record.

A new layout is one entry of `SCHEMAS`; the first one that fits is taken, so special ones go before general ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

from nft_jax.data.fields import Fields, has_field, join_field_names, read_field


class Schema(NamedTuple):
    r"""One layout of records.

    Attributes:
      name: What a run prints.
      fields: Where the problem, the answer and the solution are; the problem may be a chat, a list of messages.
      needs: Further fields by which it is recognized.
      mark: Text that the answer of the first record must hold, if not "".
      answer_is_boxed: Whether the answer is the last `\boxed{}` of the answer's field.
    """

    name: str
    fields: Fields
    needs: tuple[str, ...] = ()
    mark: str = ""
    answer_is_boxed: bool = False

    def fits(self, record: Mapping) -> bool:
        """Returns whether a file whose first record is this one has the layout."""
        return all(has_field(record, name) for name in (*self.fields[:2], *self.needs)) and self.mark in str(
            read_field(record, self.fields.answer)
        )

    def __str__(self) -> str:
        boxed = ", the last \\boxed{}" if self.answer_is_boxed else ""
        solution = f", solution {self.fields.solution!r}" if self.fields.solution else ""
        return f"{self.name}: problem {self.fields.problem!r}, answer {self.fields.answer!r}{boxed}{solution}"


_PLAIN = Fields()
_BOXED = Fields("problem", "solution", "solution")

SCHEMAS = (
    Schema("OpenR1", _PLAIN, ("generations", "problem_type")),
    Schema("NuminaMath 1.5", _PLAIN, ("problem_is_valid", "question_type")),
    Schema("NuminaMath", _BOXED, ("messages", "source"), answer_is_boxed=True),
    Schema("Big-Math", Fields("problem", "answer", ""), ("domain", "llama8b_solve_rate")),
    Schema("MATH-500", _PLAIN, ("unique_id", "subject")),
    Schema("AIME", _PLAIN, ("year", "url")),
    Schema("AIME", Fields("Problem", "Answer", "Solution")),
    Schema("AIME", Fields("Question", "Answer", ""), ("Year", "Problem Number")),
    Schema("verl", Fields("prompt", "reward_model.ground_truth", "extra_info.answer")),
    Schema("GSM8K", Fields("question", "answer", ""), mark="\n####"),
    Schema("OlympiadBench", Fields("question", "final_answer.0", "solution.0")),
    Schema("SVAMP", Fields("question_concat", "Answer", "")),
    Schema("problem/answer", _PLAIN),
    Schema("question/answer", Fields("question")),
    Schema("prompt/answer", Fields("prompt")),
    Schema("prompt/ground_truth", Fields("prompt", "ground_truth")),
    Schema("MATH", _BOXED, answer_is_boxed=True),
)
NAMES = tuple(dict.fromkeys(schema.name for schema in SCHEMAS))


def find_schema(record: Mapping, fields: Fields | None, where: str, setting: str) -> Schema:
    """Returns the layout of a file: of the given fields, else the one that fits its first record.

    Args:
      fields: The fields that a setting names, or None.
      where: Place of the record.
      setting: The setting that names the fields.

    Raises:
      ValueError: if no layout fits, or a given field is missing; with all fields of the record.
    """
    there = f"its fields are {join_field_names(record)}"
    if fields is not None:
        missing = [name for name in fields[:2] if not has_field(record, name)]
        if missing:
            raise ValueError(f"{where}: no field {missing[0]!r}, which {setting} names; {there}")
        return Schema("chosen fields", fields)
    for schema in SCHEMAS:
        if schema.fits(record):
            return schema
    raise ValueError(
        f"{where}: {there}, and this is no layout that is known ({', '.join(NAMES)}); name the fields of problem and "
        f"answer: --{setting}=PROBLEM,ANSWER, or PROBLEM,ANSWER,SOLUTION; a deeper field by dots, as in a.0.b"
    )
