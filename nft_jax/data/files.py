"""Problems with reference answers, and the readers of the JSONL and Parquet files that hold them.

To read another file format, add a reader here that yields `(number, record)` pairs as `_read_parquet_rows` does.
"""

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """One question with its reference answer.

    Attributes:
      problem: The question as text, before any prompt template.
      answer: The reference answer as text, which a grader compares with; never empty.
      solution: A worked solution, or "" where the source has none.
      kind: The family it belongs to (arithmetic: "chain", "precedence", "linear"), or "".
      id: A name that is unique in its source.
    """

    problem: str
    answer: str
    solution: str = ""
    kind: str = ""
    id: str = ""


class Fields(NamedTuple):
    """The names of the fields that hold a problem in a record.

    A dotted name reaches into objects and lists: "reward_model.ground_truth", "prompt.0.content". A field that
    has the dotted name takes precedence. A record may lack the worked solution.
    """

    problem: str = "problem"
    answer: str = "answer"
    solution: str = "solution"


DEFAULT_FIELDS = Fields()


def load_problems(path: str | Path, fields: Fields = DEFAULT_FIELDS) -> list[Problem]:
    """Reads problems from a .parquet file, or from any other file as JSONL: one object a line, empty lines skipped.

    `kind` and `id` are read from the fields of these names; a problem without an id gets "FILE:LINE".

    A number in JSONL keeps its text (`1.50` stays "1.50"). A number in Parquet becomes the text that a person would
    write: 5 is "5", 0.5 is "0.5", and 72.0 is "72". An answer in GSM8K's format, a worked solution that ends in the
    line "#### 1,000", becomes "1000", its last line without commas; the rest becomes the solution.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file has no problem or is not Parquet although its name says so. Also, with file and line or
        row, if a line is not UTF-8, not a JSON object or lacks a field, or if a problem or an answer is empty or not
        text.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give a JSONL file with one problem a line, or a .parquet file")
    parquet = path.suffix == ".parquet"
    records = _read_parquet_rows(path, (*fields, "kind", "id")) if parquet else _read_json_lines(path)
    problems = []
    for number, record in records:
        where = f"{path}: row {number}" if parquet else f"{path}:{number}"
        problems.append(problem_from_record(record, where, f"{path.name}:{number}", fields))
    if not problems:
        raise ValueError(f"{path} holds no problems: it has no {'row' if parquet else 'line that is not empty'}")
    return problems


def problem_from_record(record: Mapping, where: str, name: str, fields: Fields) -> Problem:
    """Makes a problem from one record; a record without an id gets `name`.

    Raises:
      ValueError: with `where`, if a field is missing or empty or not text.
    """
    problem = _read_text(record, "problem_field", fields.problem, where)
    answer, worked = _split_gsm8k_answer(_read_text(record, "answer_field", fields.answer, where))
    return Problem(
        problem=problem,
        answer=answer,
        solution=_read_optional_text(record, fields.solution) or worked,
        kind=_read_optional_text(record, "kind"),
        id=_read_optional_text(record, "id") or name,
    )


def _split_gsm8k_answer(answer: str) -> tuple[str, str]:
    """Returns the answer after GSM8K's "####" and the worked solution before it; other answers come back unchanged."""
    worked, mark, last = answer.rpartition("\n####")
    if not mark or not last.strip() or "\n" in last.strip():
        return answer, ""
    return last.replace(",", "").strip(), worked


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    """Yields the number and the object of each line that is not empty."""
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        raise ValueError(f"{path} is a Parquet file: give it a name that ends in .parquet")
    # Split at \n bytes: str.splitlines would also split at U+2028, which may occur unescaped in a JSON string.
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if raw.strip():
            yield number, _parse_json_line(raw, f"{path}:{number}")


def _parse_json_line(raw: bytes, where: str) -> dict:
    """Parses one line of JSONL into a dict whose numbers keep their text.

    Raises:
      ValueError: with `where`, if the line is not UTF-8 or not a JSON object.
    """
    try:
        text = raw.decode("utf-8-sig")  # drops a byte order mark at the start of the file
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


def _read_parquet_rows(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """Yields the number and the record of each row; columns outside `fields` appear with empty values only."""
    import pyarrow  # slow to import, so only readers of Parquet pay for it
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        unread = {field.name: _empty_value(field.type) for field in file.schema_arrow}
        columns = {name for field in fields for name in (field, field.partition(".")[0])}
        number = 0
        for batch in file.iter_batches(columns=sorted(columns)):
            for row in _widen_floats(batch).to_pylist():
                number += 1
                yield number, unread | row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable Parquet file: {error}") from error


def _empty_value(kind: Any) -> Any:
    """Returns an empty value of an Arrow type, down to the names of its fields: {"role": None}, [None] or None."""
    from pyarrow import types

    if types.is_struct(kind):
        return {field.name: _empty_value(field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_empty_value(kind.value_type)]
    return None


def _widen_floats(batch: Any) -> Any:
    """Casts float16 and float32 columns to float64 through their text, so that 0.1 is not 0.10000000149011612."""
    import pyarrow

    for index, column in enumerate(batch.columns):
        if column.type in (pyarrow.float16(), pyarrow.float32()):
            column = column.cast(pyarrow.string()).cast(pyarrow.float64())
            batch = batch.set_column(index, batch.schema.names[index], column)
    return batch


def _read_field(holder: Any, field: str) -> Any:
    """Returns the value of the field with exactly this name, or else of the one that its dots lead to.

    Raises:
      KeyError: if there is neither.
    """
    if isinstance(holder, list):
        holder = {str(place): value for place, value in enumerate(holder)}
    if not isinstance(holder, Mapping):
        raise KeyError(field)
    if field in holder:
        return holder[field]
    head, _, rest = field.partition(".")
    return _read_field(holder[head], rest)


def _field_names(holder: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of each innermost field; a list is represented by its first element."""
    children = {"0": holder[0]} if isinstance(holder, list) and holder else holder
    if not isinstance(children, Mapping):
        yield prefix
        return
    for name, value in children.items():
        yield from _field_names(value, f"{prefix}.{name}" if prefix else name)


def _join_field_names(holder: Any, prefix: str = "") -> str:
    return ", ".join(map(repr, _field_names(holder, prefix))) or "none"


def _number_to_text(value: Any) -> Any:
    """Returns a number as the text that a person would write, and any other value unchanged."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        # Some tools store whole numbers as floats: 72.0 is the answer 72. Floats beyond 1e16 are not exact integers.
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, int) else value


def _read_text(record: Mapping, setting: str, field: str, where: str) -> str:
    """Returns the text of a required field.

    Raises:
      ValueError: with `where`, if the field is missing (then with the existing fields and the setting that chooses
        one), empty, neither text nor a number, or not encodable.
    """
    try:
        value = _number_to_text(_read_field(record, field))
    except KeyError:
        raise ValueError(
            f"{where}: no field {field!r}; its fields are {_join_field_names(record)}: set config.data.{setting} to "
            "the one that holds it"
        ) from None
    if not isinstance(value, str):
        names = _join_field_names(value, field) if isinstance(value, Mapping | list) and value else ""
        deeper = f"; it has the fields {names}" if names else ""
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


def _read_optional_text(record: Mapping, field: str) -> str:
    """Returns the text or number in a field, or "" if there is none."""
    try:
        value = _number_to_text(_read_field(record, field))
    except KeyError:
        return ""
    return value if isinstance(value, str) else ""
