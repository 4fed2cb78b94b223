"""Problems with reference answers, and how a record of a file becomes one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from nft_jax.data.fields import Fields, check_text, join_field_names, read_field, read_optional_text
from nft_jax.data.records import Record, read_records
from nft_jax.data.schemas import Schema, find_schema
from nft_jax.verify.extract import last_boxed

FIELDS_SETTING = "config.data.train_fields"
# What sets such as NuminaMath write where a problem has no answer.
_NO_ANSWER = ("", "proof", "notfound", "not found")


class Problem(NamedTuple):
    """One question with its reference answer.

    Attributes:
      problem: The question as text, before any prompt template.
      answer: The reference answer as text, which a grader compares with; never empty.
      solution: A worked solution, or "" where the source has none.
      kind: The family it belongs to (arithmetic: "chain", "precedence", "linear"), or "".
      id: A name that is unique in its source.
      messages: (role, text) of each chat message before the question: a system prompt, worked examples.
    """

    problem: str
    answer: str
    solution: str = ""
    kind: str = ""
    id: str = ""
    messages: tuple[tuple[str, str], ...] = ()


class ProblemSet(list[Problem]):
    """Problems in order, with where they come from and what was left out.

    Attributes:
      source: The name by which they were read.
      layout: The layout of their records, for a person to read; "" for generated problems.
      left_out: How many were left out, by reason.
    """

    def __init__(
        self,
        problems: Iterable[Problem] = (),
        source: str = "",
        layout: str = "",
        left_out: Mapping[str, int] = MappingProxyType({}),
    ):
        super().__init__(problems)
        self.source, self.layout, self.left_out = source, layout, {k: n for k, n in left_out.items() if n}

    @property
    def given(self) -> int:
        """How many there were before any was left out."""
        return len(self) + sum(self.left_out.values())

    def describe(self) -> str:
        """Returns how many problems were read from where, in which layout, and how many were left out and why."""
        where = f" from {self.source}" if self.source else ""
        layout = f" ({self.layout})" if self.layout else ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        left_out = f"\n  of {self.given:,} left out: {reasons}" if reasons else ""
        return f"{len(self):,} problems{where}{layout}{left_out}"

    def keep(self, problems: Iterable[Problem], left_out: Mapping[str, int]) -> "ProblemSet":
        """Returns the problems that are kept after these more were left out."""
        total = {reason: self.left_out.get(reason, 0) + count for reason, count in left_out.items()}
        return ProblemSet(problems, self.source, self.layout, self.left_out | total)


class RecordReader:
    """Makes the problems of one set from its records, and counts those that are left out.

    Attributes:
      fields: The fields that a setting names; None: those of the layout that the first record has.
      setting: The setting that names the fields, for errors.
      once: Whether a record that repeats the problem and answer of an earlier one is left out.
    """

    def __init__(self, source: str, fields: Fields | None = None, setting: str = FIELDS_SETTING, once: bool = True):
        self.source, self.fields, self.setting, self.once = source, fields, setting, once
        self.schema: Schema | None = None
        self.problems: list[Problem] = []
        self._left_out = {"no answer": 0, "repeats another row": 0}
        self._seen: set[tuple] = set()

    def read_file(self, path: Path) -> None:
        """Reads the records of a file.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it can't be read, has no record, or a record is no problem.
        """
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no file on a disk" if path.exists() else "does not exist"
            raise FileNotFoundError(f"{path} {what}; give a JSONL, JSON, CSV or Parquet file with one problem a record")
        self.schema = None

        def choose(values: Mapping) -> tuple[str, ...]:
            return *find_schema(values, self.fields, f"{path}: row 1", self.setting).fields, "kind", "id"

        for record in (records := _Counted(read_records(path, choose))):
            self.add(record.values, f"{path}{record.place}", f"{path.name}:{record.number}")
        if not records.count:
            raise ValueError(f"{path} holds no problems: it has no record")

    def add(self, values: Mapping, where: str, name: str) -> None:
        """Adds the problem of one record; one without an id gets `name`.

        Raises:
          ValueError: with `where`, if a field is missing, or the problem is empty or not text.
        """
        if self.schema is None:
            self.schema = find_schema(values, self.fields, where, self.setting)
        problem = make_problem(values, where, name, self.schema, self.setting)
        key = (problem.problem, problem.answer, problem.messages)
        if problem.answer.lower() in _NO_ANSWER:
            self._left_out["no answer"] += 1
        elif self.once and key in self._seen:
            self._left_out["repeats another row"] += 1
        else:
            self.problems.append(problem)
            if self.once:
                self._seen.add(key)

    def finish(self) -> ProblemSet:
        """Returns the set.

        Raises:
          ValueError: if no record has an answer.
        """
        if not self.problems:
            raise ValueError(
                f"{self.source}: none of {sum(self._left_out.values())} records has an answer ({self.schema}); name "
                f"the fields: --{self.setting}=PROBLEM,ANSWER"
            )
        return ProblemSet(self.problems, self.source, str(self.schema), self._left_out)


class _Counted:
    """Iterates over records, and counts them."""

    def __init__(self, records: Iterable[Record]):
        self.records, self.count = records, 0

    def __iter__(self):
        for self.count, record in enumerate(self.records, start=1):  # noqa: B020
            yield record


def load_problems(path: str | Path, fields: Fields | None = None, **options: Any) -> ProblemSet:
    """Reads problems from a file: JSON lines, a JSON array, CSV, TSV or Parquet, plain or compressed by gzip.

    `kind` and `id` are read from the fields of these names; a problem without an id gets "FILE:LINE". Rows without an
    answer are left out and counted, and so are rows that repeat another.

    A number in text keeps its text (`1.50` stays "1.50"). A number in Parquet becomes the text that a person would
    write: 5 is "5", 0.5 is "0.5", and 72.0 is "72". An answer in GSM8K's format, a worked solution that ends in the
    line "#### 1,000", becomes "1000", its last line without commas; the rest becomes the solution.

    Args:
      fields: Where the problem is in a record; None: as in the layout that is recognized (schemas.py).
      **options: `setting` and `once` of `RecordReader`.

    Raises:
      FileNotFoundError, ValueError: as `RecordReader`.
    """
    reader = RecordReader(str(path), fields, **options)
    reader.read_file(Path(path))
    return reader.finish()


def make_problem(record: Mapping, where: str, name: str, schema: Schema, setting: str = FIELDS_SETTING) -> Problem:
    """Makes a problem from one record, whose answer is "" if it has none; a record without an id gets `name`.

    Raises:
      ValueError: with `where`, if a field is missing, the problem is empty, or one is not text.
    """
    fields = schema.fields
    text, messages = _read_question(_read_required(record, fields.problem, where, setting), fields.problem, where)
    answer = _read_required(record, fields.answer, where, setting)
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        answer = ""
    else:
        answer = check_text(answer, fields.answer, where)
    answer, worked = (last_boxed(answer) or "", "") if schema.answer_is_boxed else _split_gsm8k_answer(answer)
    return Problem(
        problem=text,
        answer=answer if answer.strip() else "",
        solution=read_optional_text(record, fields.solution) or worked,
        kind=read_optional_text(record, "kind"),
        id=read_optional_text(record, "id") or name,
        messages=messages,
    )


def _read_required(record: Mapping, field: str, where: str, setting: str) -> Any:
    try:
        return read_field(record, field)
    except KeyError:
        raise ValueError(
            f"{where}: no field {field!r}; its fields are {join_field_names(record)}: set {setting} to those that hold "
            "problem and answer, comma between them"
        ) from None


def _read_question(value: Any, field: str, where: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Returns the text of a problem, and the chat messages before it if it is the last message of a chat.

    Raises:
      ValueError: with `where`, if it is neither text nor a chat of texts that ends with the user's message.
    """
    is_chat = isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
    if not is_chat or not all("role" in each and "content" in each for each in value):
        return check_text(value, field, where), ()
    if value[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message of {field!r} is by {value[-1]['role']!r}; it must be the user's")
    messages = [
        (str(each["role"]), check_text(each["content"], f"{field}.{place}.content", where))
        for place, each in enumerate(value)
    ]
    return messages[-1][1], tuple(messages[:-1])


def _split_gsm8k_answer(answer: str) -> tuple[str, str]:
    """Returns the answer after GSM8K's "####" and the worked solution before it; other answers come back unchanged."""
    worked, mark, last = answer.rpartition("\n####")
    if not mark or not last.strip() or "\n" in last.strip():
        return answer, ""
    return last.replace(",", "").strip(), worked
