"""Files are read by their content, in every format and packing; others are refused with what to type."""

import csv
import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from nft_jax.data.benchmarks import read
from nft_jax.data.files import load_problems
from nft_jax.data.records import _REFUSED, SUFFIXES, has_known_suffix, read_records

TEXTS = ("1+1", 'a "quoted", b', "two\nlines", "a\u2028b", "数学 é", "{x}", "\ttab")


def draw_rows(seed: int) -> list[dict]:
    draw = random.Random(seed)
    return [
        {"problem": f"{draw.choice(TEXTS)} {i}", "answer": str(draw.randrange(99)), "id": f"r{i}"}
        for i in range(draw.randrange(1, 30))
    ]


def write_as(path, rows):
    """Writes rows in the format of the path's suffix."""
    suffix = path.suffix
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0].keys(), delimiter={".csv": ",", ".tsv": "\t"}[suffix])
            table.writeheader()
            table.writerows(rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), "utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_records_of_every_format_is_the_same(tmp_path, suffix, seed):
    rows = draw_rows(seed)
    plain = write_as(tmp_path / f"f{suffix}", rows)
    expected = [(row["problem"], row["answer"], row["id"]) for row in rows]
    packed = tmp_path / "packed" / f"train{suffix}.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    named_wrongly = [tmp_path / f"packed{suffix}", tmp_path / f"plain{suffix}.gz", tmp_path / f"twice{suffix}.gz"]
    named_wrongly[0].write_bytes(packed.read_bytes())
    named_wrongly[1].write_bytes(plain.read_bytes())
    named_wrongly[2].write_bytes(gzip.compress(packed.read_bytes()))
    for path in (plain, packed, *named_wrongly):
        assert [(p.problem, p.answer, p.id) for p in load_problems(path)] == expected, (path, f"seed {seed}")
        assert has_known_suffix(path)
    # Of a folder, and of a folder with a named set.
    assert [each.problem for each in read(f"{packed.parent}:train")] == [row["problem"] for row in rows]
    assert [each.problem for each in read("train", root=str(packed.parent))] == [row["problem"] for row in rows]


# Pieces that parsers of JSON, CSV and their packings trip over.
PIECES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"[", b"{", b'"', b"\\ud800", b"\\u0000", b"\r", b"\n", b"\xe2\x80\xa8"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN", b"null", b"1e999", b"\x1b[31m", b"," * 50),
)


@pytest.mark.parametrize("suffix", (*SUFFIXES, ".jsonl.gz"))
def test_read_records_reads_or_refuses_every_damaged_file(tmp_path, suffix):
    seed, path, outcomes = 18, tmp_path / f"f{suffix}", {"read": 0, "refused": 0}
    draw, plain = random.Random(seed), write_as(tmp_path / f"g{suffix.removesuffix('.gz')}", draw_rows(seed))
    proper = gzip.compress(plain.read_bytes()) if suffix.endswith(".gz") else plain.read_bytes()
    for number in range(60):
        content = bytearray(proper)
        for _ in range(draw.choice((1, 1, 2, 5))):
            place, kind = draw.randrange(len(content)), draw.randrange(4)
            if kind == 0:
                content[place] ^= 1 << draw.randrange(8)
            elif kind == 1:
                content[place:place] = draw.choice(PIECES)
            else:
                del content[place : place + draw.randrange(1, 30) if kind == 2 else None]
                content += b"\n"
        path.write_bytes(content)
        try:
            problems = load_problems(path)
        except ValueError as error:
            outcomes["refused"] += 1
            assert str(path) in str(error) and len(str(error)) < 1500, f"seed {seed}, file {number}: {error}"
        else:
            outcomes["read"] += 1
            assert all((each.problem + each.answer).encode() for each in problems), f"seed {seed}, file {number}"
    print(f"{suffix}, seed {seed}: {outcomes}")
    assert outcomes["refused"] > 5


def test_read_records_ignores_the_suffix_where_the_content_tells(tmp_path):
    rows = draw_rows(0)
    for suffix in (".parquet", ".json", ".jsonl"):
        for name in ("f.jsonl", "f.json", "f.txt"):
            path = write_as(tmp_path / f"f{suffix}", rows).rename(tmp_path / name)
            assert len(load_problems(path)) == len(rows)


@pytest.mark.parametrize("mark", _REFUSED)
@pytest.mark.parametrize("packed", [False, True])
def test_read_records_names_what_a_file_is_and_what_to_type(tmp_path, mark, packed):
    content = mark + b'{"problem": "p"}'
    path = tmp_path / "f.jsonl"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError) as caught:
        load_problems(path)
    what, remedy = _REFUSED[mark]
    assert f"{path} is {what}, which is not read: {remedy.format(file=path)}" == str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_read_records_of_utf_16_gives_the_command(tmp_path, encoding):
    path = tmp_path / "train.jsonl"
    path.write_bytes('{"problem": "p", "answer": "1"}\n'.encode(encoding))
    for name in (str(path), str(tmp_path)):
        with pytest.raises(ValueError, match=f"is UTF-16 text.*: iconv -f utf-16 -t utf-8 {path} > new.jsonl"):
            read(name)


def test_read_records_refuses_damaged_files(tmp_path):
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"problem": "p", "answer": "1"}\n' * 99)[:-9])
    with pytest.raises(ValueError, match="f.jsonl.gz is no whole gzip file"):
        load_problems(path)
    for name, text, words in (
        (
            "f.json",
            '[{"problem": "p", "answer": "1"},\n{]',
            "f.json: not JSON .*line 2, column 2.*begins like a JSON a",
        ),
        ("f.json", '[{"problem": "p", "answer": "1"}, 5]', "f.json: row 2: a JSON str, not an object"),
        (
            "f.csv",
            "problem,answer\na,b,1\n",
            "row 1 has more cells than the first row.*'answer'.*double quotes",
        ),
        ("f.csv", "problem,answer,answer,,\na,b,1,,\n", "f.csv has two columns 'answer', and only one can count"),
        ("f.parquet", "problem", "f.parquet is no readable Parquet file: it does not begin like one"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words):
            load_problems(tmp_path / name)
    (tmp_path / "f.csv").write_bytes(b"problem,answer\ncaf\xe9,1\n")
    with pytest.raises(ValueError, match="f.csv: not UTF-8 .byte 0xe9"):
        list(read_records(tmp_path / "f.csv", lambda record: record))
