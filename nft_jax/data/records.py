"""Records of files: JSON lines, a JSON array, CSV, TSV or Parquet, plain or compressed by gzip.

The content decides how a file is read, whatever its name; only CSV and TSV are known by their suffix. To read another
format, add a reader that yields records to `_choose_reader`, and its suffix to `SUFFIXES`.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nft_jax.files import find_twice, parse_json
from nft_jax.names import quote

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
# The beginnings of files that aren't read: what such a file is, and how to make one that is.
_REFUSED = {
    b"\xff\xff\xff\xff": ("an Arrow stream", "in Python: datasets.load_from_disk(FOLDER).to_parquet(NEW_FILE)"),
    b"ARROW1": ("an Arrow file", "in Python: pyarrow.parquet.write_table(pyarrow.feather.read_table(FILE), NEW_FILE)"),
    b"\xff\xfe": ("UTF-16 text", "iconv -f utf-16 -t utf-8 {file} > new.jsonl"),
    b"\xfe\xff": ("UTF-16 text", "iconv -f utf-16 -t utf-8 {file} > new.jsonl"),
    b"PK\x03\x04": ("a ZIP archive", "unzip {file}"),
    b"BZh": ("compressed by bzip2", "bunzip2 {file}"),
    b"\xfd7zXZ": ("compressed by xz", "unxz {file}"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unzstd {file}"),
    b"version https://git-lfs": ("a pointer of Git LFS", "git lfs pull"),
    b"<": ("a web page or XML", "download the raw file"),
}


class Record(NamedTuple):
    """One record of a file.

    Attributes:
      place: Where it is, to follow the file's name: ":3" for a line, ": row 3" otherwise.
      number: The number of its line or row, from 1.
      values: Its fields; numbers of text formats keep their text.
    """

    place: str
    number: int
    values: dict


def has_known_suffix(path: str | Path) -> bool:
    """Returns whether a name ends like that of a file of records, with or without .gz."""
    return str(path).removesuffix(".gz").endswith(SUFFIXES)


def read_records(path: Path, choose: Callable[[dict], Iterable[str]]) -> Iterator[Record]:
    """Yields the records of a file; empty lines are skipped.

    Args:
      choose: Returns the fields that are needed, given the first record; columns of Parquet outside them appear with
        empty values only.

    Raises:
      ValueError: with file and place, for a file or record that can't be read.
    """
    try:
        with open(path, "rb") as file:
            yield from _choose_reader(file, path)(choose)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file: {error}; copy or download it again") from error


def _choose_reader(file: BinaryIO, path: Path) -> Callable[[Callable], Iterator[Record]]:
    stream = file
    while stream.peek(2).startswith(_GZIP):
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
    head = stream.peek(64)[:64]
    if head.startswith(_PARQUET):
        return lambda choose: _read_parquet(path if stream is file else io.BytesIO(stream.read()), path, choose)
    # UTF-16 without its mark has a zero byte beside each character of JSON.
    head = b"\xff\xfe" + head if b"\0" in head[:2] else head
    for mark, (what, remedy) in _REFUSED.items():
        if head.lstrip().startswith(mark):
            raise ValueError(f"{path} is {what}, which is not read: {remedy.format(file=path)}")
    suffix = Path(str(path).removesuffix(".gz")).suffix
    if suffix in _SEPARATORS:
        return lambda _: _read_table(stream, path, _SEPARATORS[suffix])
    if suffix == ".parquet":
        raise ValueError(f"{path} is no readable Parquet file: it does not begin like one; download it again")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return lambda _: _read_json_array(stream.read(), path)
    return lambda _: _read_json_lines(stream, path)


def _read_json_lines(lines: Iterable[bytes], path: Path) -> Iterator[Record]:
    # Lines end at \n bytes: str.splitlines would also split at U+2028, which may occur unescaped in a JSON string.
    for number, raw in enumerate(lines, start=1):
        if raw.strip():
            values = _parse_json(
                raw.rstrip(b"\n"), f"{path}:{number}", "; a JSONL file has one whole object on each line"
            )
            yield Record(f":{number}", number, _check_object(values, f"{path}:{number}"))


def _read_json_array(content: bytes, path: Path) -> Iterator[Record]:
    for number, values in enumerate(_parse_json(content, str(path), "; it begins like a JSON array"), start=1):
        yield Record(f": row {number}", number, _check_object(values, f"{path}: row {number}"))


def _parse_json(raw: bytes, where: str, expected: str) -> Any:
    """Parses JSON whose numbers keep their text.

    Raises:
      ValueError: with `where`, if it is not UTF-8 or not JSON.
    """
    text = _decode(raw, where)
    try:
        return parse_json(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(
            f"{where}: not JSON ({error.msg} at {place}column {error.colno}): {text.strip()[:60]!r}{expected}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}: {text.strip()[:60]!r}{expected}") from None


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")  # drops a byte order mark at the start of the file
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 (byte {raw[error.start]:#04x} at column {error.start + 1}); "
            "convert the file, e.g. iconv -f latin1 -t utf-8"
        ) from None


def _check_object(values: Any, where: str) -> dict:
    if not isinstance(values, dict):
        raise ValueError(f'{where}: a JSON {type(values).__name__}, not an object like {{"problem": …, "answer": …}}')
    return values


def _read_table(stream: BinaryIO, path: Path, separator: str) -> Iterator[Record]:
    """Yields the rows of CSV or TSV, whose first row names the fields."""
    csv.field_size_limit(sys.maxsize)
    text = _decode(stream.read(), str(path))
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    _check_columns(rows.fieldnames or (), path)
    for number, values in enumerate(rows, start=1):
        if None in values:
            raise ValueError(
                f"{path}: row {number} has more cells than the first row, which names the fields {[*values][:-1]}; "
                f"put text that holds {separator!r} in double quotes"
            )
        yield Record(f": row {number}", number, values)


def _check_columns(names: Iterable[str], path: Path) -> None:
    """Raises a ValueError for two columns of one name; spreadsheets leave several without any."""
    if (twice := find_twice(filter(None, names))) is not None:
        raise ValueError(f"{path} has two columns {quote(twice)}, and only one can count; rename or remove one")


def _read_parquet(source: Any, path: Path, choose: Callable[[dict], Iterable[str]]) -> Iterator[Record]:
    import pyarrow  # slow to import, so only readers of Parquet pay for it
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(source)
        _check_columns(file.schema_arrow.names, path)
        unread = {field.name: _empty_value(field.type) for field in file.schema_arrow}
        first = next(file.iter_batches(batch_size=1), None)
        fields = choose(unread | _to_rows(first)[0]) if first is not None and first.num_rows else ()
        columns = {name for field in fields for name in (field, field.partition(".")[0])}
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=sorted(columns)) if columns else ():
            for row in _to_rows(batch):
                number += 1
                yield Record(f": row {number}", number, unread | row)
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


def _to_rows(batch: Any) -> list[dict]:
    """Returns the rows of a batch; float16 and float32 become float64 through their text, so that 0.1 stays 0.1."""
    import pyarrow

    for index, column in enumerate(batch.columns):
        if column.type in (pyarrow.float16(), pyarrow.float32()):
            column = column.cast(pyarrow.string()).cast(pyarrow.float64())
            batch = batch.set_column(index, batch.schema.names[index], column)
    return batch.to_pylist()
