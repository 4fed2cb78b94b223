"""Problems with known answers, and where they are read from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """One question with the answer that a verifier compares with.

    `problem`   the question as text, before any template
    `answer`    the reference answer, as text; never empty
    `solution`  a worked solution, where the source has one
    `kind`      the family it belongs to (arithmetic: "chain", "precedence", "linear")
    `id`        a name that is unique in its source
    """

    problem: str
    answer: str
    solution: str = ""
    kind: str = ""
    id: str = ""


def load_problems(
    path: str | Path,
    *,
    problem_field: str = "problem",
    answer_field: str = "answer",
    solution_field: str = "solution",
) -> list[Problem]:
    """Read problems from a JSONL file, one object a line; empty lines are skipped.

    A number in a field is kept as the text it was written as (`1.50` stays "1.50"). `kind` and `id` are read from the
    fields of these names; without an id it is "FILE:LINE".

    Raises FileNotFoundError if there is no such file, and ValueError, with file and line, for a line that is not UTF-8,
    not a JSON object, has no such field, or whose problem or answer is empty or not text.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give a JSONL file with one problem a line")
    if path.suffix == ".parquet":
        raise ValueError(f"{path} is Parquet, which is not read yet; write it as JSONL, e.g. with pandas' to_json")
    problems = []
    # Cut at \n bytes: str.splitlines would also cut at U+2028, which may stand unescaped inside a JSON string.
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"{path}:{number}"
        record = _parse(raw, where)
        problems.append(
            Problem(
                problem=_text(record, "problem_field", problem_field, where),
                answer=_text(record, "answer_field", answer_field, where),
                solution=_optional(record, solution_field),
                kind=_optional(record, "kind"),
                id=_optional(record, "id") or f"{path.name}:{number}",
            )
        )
    if not problems:
        raise ValueError(f"{path} holds no problems: it has no line that is not empty")
    return problems


def _parse(raw: bytes, where: str) -> dict:
    """One line of JSONL as a dict whose numbers are the text they were written as; ValueError names `where`."""
    try:
        text = raw.decode("utf-8-sig")  # a byte order mark at the start of a file is no content
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1}); "
            "convert the file, e.g. iconv -f latin1 -t utf-8"
        ) from None
    try:
        record = json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg} at column {error.colno}): {text.strip()[:60]!r}; "
            "a JSONL file has one whole object on each line"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f'{where}: a JSON {type(record).__name__}, not an object like {{"problem": …, "answer": …}}')
    return record


def _text(record: Mapping, argument: str, field: str, where: str) -> str:
    """A required, non-empty text field; ValueError names `where`, the fields present, and the argument to set."""
    if field not in record:
        fields = ", ".join(map(repr, record)) or "none"
        raise ValueError(f"{where}: no field {field!r}; its fields are {fields}: set {argument} to the right one")
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(f"{where}: field {field!r} is {value!r}, neither text nor a number")
    if not value.strip():
        raise ValueError(f"{where}: field {field!r} is empty; remove the line or fill it in")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: field {field!r} holds half of a surrogate pair, which no tokenizer can read"
        ) from None
    return value


def _optional(record: Mapping, field: str) -> str:
    value = record.get(field)
    return value if isinstance(value, str) else ""
