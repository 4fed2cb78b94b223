"""Problems with known answers, and where they are read from."""

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple


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
    """Read problems from a .parquet file, or from any other as JSONL: one object a line, empty lines skipped.

    A dotted name reaches into objects and lists: "reward_model.ground_truth", "prompt.0.content"; a field whose own
    name has the dot wins. `kind` and `id` are read from the fields of these names; without an id it is "FILE:LINE".
    A number in JSONL is kept as the text it was written as (`1.50` stays "1.50"). In Parquet it becomes the text a
    person would write: 5 is "5", 0.5 is "0.5", and 72.0 is "72". An answer as GSM8K's own files have it, a worked
    solution that ends in a line "#### 1,000", is its last line without the commas, "1000"; the rest is the solution.

    Raises FileNotFoundError if there is no such file, and ValueError, with file and line or row, for a line that is not
    UTF-8, not a JSON object, has no such field, or whose problem or answer is empty or not text, and for a file that
    has no problem or is no Parquet though it is named so.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give a JSONL file with one problem a line, or a .parquet file")
    names = {"problem_field": problem_field, "answer_field": answer_field, "solution_field": solution_field}
    parquet = path.suffix == ".parquet"
    problems = []
    for number, record in _parquet_rows(path, (*names.values(), "kind", "id")) if parquet else _json_lines(path):
        where = f"{path}: row {number}" if parquet else f"{path}:{number}"
        problems.append(problem_from_record(record, where, f"{path.name}:{number}", **names))
    if not problems:
        raise ValueError(f"{path} holds no problems: it has no {'row' if parquet else 'line that is not empty'}")
    return problems


def problem_from_record(
    record: Mapping, where: str, name: str, *, problem_field: str, answer_field: str, solution_field: str
) -> Problem:
    """One record as a problem, called `name` where it has no id of its own; ValueError, with `where`, as above."""
    problem = _text(record, "problem_field", problem_field, where)
    answer, worked = _final(_text(record, "answer_field", answer_field, where))
    return Problem(
        problem=problem,
        answer=answer,
        solution=_optional(record, solution_field) or worked,
        kind=_optional(record, "kind"),
        id=_optional(record, "id") or name,
    )


def _final(answer: str) -> tuple[str, str]:
    """The answer after GSM8K's "####", and the worked solution before it; other answers are the answer as it stands."""
    worked, mark, last = answer.rpartition("\n####")
    if not mark or not last.strip() or "\n" in last.strip():
        return answer, ""
    return last.replace(",", "").strip(), worked


def _json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    """The number and the object of each line that is not empty."""
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        raise ValueError(f"{path} is a Parquet file: give it a name that ends in .parquet")
    # Cut at \n bytes: str.splitlines would also cut at U+2028, which may stand unescaped inside a JSON string.
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if raw.strip():
            yield number, _parse(raw, f"{path}:{number}")


def _parse(raw: bytes, where: str) -> dict:
    """One line of JSONL as a dict whose numbers are the text they were written as; ValueError names `where`."""
    try:
        text = raw.decode("utf-8-sig")  # a byte order mark at the start of a file is no content
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1}); "
            "convert the file, e.g. iconv -f latin1 -t utf-8"
        ) from None
    array = "; is the file one JSON array? Write it as lines: jq -c '.[]'" if text.lstrip().startswith("[") else ""
    try:
        record = json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg} at column {error.colno}): {text.strip()[:60]!r}; "
            f"a JSONL file has one whole object on each line{array}"
        ) from None
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise ValueError(f'{where}: a JSON {kind}, not an object like {{"problem": …, "answer": …}}{array}')
    return record


def _parquet_rows(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """The number and the fields of each row; of columns that are not needed, the names alone are there."""
    import pyarrow  # slow to import: only for those who need it
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        unread = {field.name: _specimen(field.type) for field in file.schema_arrow}
        columns = {name for field in fields for name in (field, field.partition(".")[0])}
        number = 0
        for batch in file.iter_batches(columns=sorted(columns)):
            for row in _widened(batch).to_pylist():
                number += 1
                yield number, unread | row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable Parquet file: {error}") from error


def _specimen(kind: Any) -> Any:
    """An empty value of an Arrow type, down to the names of its fields: {"role": None}, [None], None."""
    from pyarrow import types

    if types.is_struct(kind):
        return {field.name: _specimen(field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_specimen(kind.value_type)]
    return None


def _widened(batch: Any) -> Any:
    """A batch with its columns of single precision in double: by their text, so that 0.1 is not 0.10000000149011612."""
    import pyarrow

    for index, column in enumerate(batch.columns):
        if column.type in (pyarrow.float16(), pyarrow.float32()):
            column = column.cast(pyarrow.string()).cast(pyarrow.float64())
            batch = batch.set_column(index, batch.schema.names[index], column)
    return batch


def _value(holder: Any, field: str) -> Any:
    """What the field of this very name holds, or else the one its dots lead to; KeyError if there is none."""
    if isinstance(holder, list):
        holder = {str(place): value for place, value in enumerate(holder)}
    if not isinstance(holder, Mapping):
        raise KeyError(field)
    if field in holder:
        return holder[field]
    head, _, rest = field.partition(".")
    return _value(holder[head], rest)


def _names(holder: Any, prefix: str = "") -> Iterator[str]:
    """The name of each field as one would type it, down to the deepest; the first element stands for a list."""
    children = {"0": holder[0]} if isinstance(holder, list) and holder else holder
    if not isinstance(children, Mapping):
        yield prefix
        return
    for name, value in children.items():
        yield from _names(value, f"{prefix}.{name}" if prefix else name)


def _listed(holder: Any, prefix: str = "") -> str:
    return ", ".join(map(repr, _names(holder, prefix))) or "none"


def _as_text(value: Any) -> Any:
    """A number as the text a person would write; anything else, and what is no number, as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        # Where tools store whole numbers as floats, the answer is still 72. Doubles beyond 1e16 are no longer exact.
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, int) else value


def _text(record: Mapping, setting: str, field: str, where: str) -> str:
    """A required, non-empty text field; ValueError names `where`, the fields that are there, and the setting."""
    try:
        value = _as_text(_value(record, field))
    except KeyError:
        raise ValueError(
            f"{where}: no field {field!r}; its fields are {_listed(record)}: set config.data.{setting} to the right one"
        ) from None
    if not isinstance(value, str):
        deeper = f"; it has the fields {_listed(value, field)}" if isinstance(value, Mapping | list) and value else ""
        raise ValueError(f"{where}: field {field!r} is {repr(value)[:200]}, neither text nor a number{deeper}")
    if not value.strip():
        raise ValueError(f"{where}: field {field!r} is empty; remove the problem or fill it in")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: field {field!r} holds half of a surrogate pair, which no tokenizer can read"
        ) from None
    return value


def _optional(record: Mapping, field: str) -> str:
    """The text or number in a field, or "" where there is none."""
    try:
        value = _as_text(_value(record, field))
    except KeyError:
        return ""
    return value if isinstance(value, str) else ""
