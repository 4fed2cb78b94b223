"""`atomically`: a file or a folder is complete, or what it was. `json_text`: JSON that every reader reads."""

import ast
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from etils import epath

from helpers.documents import ROOT
from nft_jax.files import TEMPORARY_PREFIX, atomically, json_text, name_output, parse_json


@pytest.fixture(params=[lambda path: path, epath.Path], ids=["pathlib", "epath"])
def folder(request, tmp_path):
    """The same folder as `pathlib.Path` and as `epath.Path`."""
    return request.param(tmp_path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomically_writes_a_file_and_makes_missing_parents(folder):
    path = folder / "deep" / "result.json"
    with atomically(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.startswith(TEMPORARY_PREFIX)
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert names(path.parent) == ["result.json"]


def test_atomically_replaces_a_file_and_keeps_it_when_the_block_raises(folder):
    path = folder / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(folder) == ["result.json"]
    with atomically(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_atomically_makes_a_folder_or_leaves_nothing(folder):
    path = folder / "model"
    with pytest.raises(OSError, match="full"), atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("half")
        raise OSError("full")
    assert names(folder) == []
    path.mkdir()  # an empty folder may be replaced
    with atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
    assert names(path) == ["config.json"]
    with pytest.raises(OSError, match="empty"), atomically(path) as temporary:
        temporary.mkdir()
    assert names(folder) == ["model"]
    assert names(path) == ["config.json"]


def test_atomically_has_a_file_on_the_disk_before_it_renames_it(tmp_path, monkeypatch):
    path, flushed = tmp_path / "result.json", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append((os.fstat(handle).st_ino, path.read_text())))
    with atomically(path) as temporary:
        temporary.write_text("new")
    assert flushed == [(path.stat().st_ino, "old")]
    assert stat.S_ISREG(path.stat().st_mode)


def test_atomically_raises_when_the_block_writes_nothing(folder):
    with pytest.raises(FileNotFoundError), atomically(folder / "result.json"):
        pass
    assert names(folder) == []


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def test_name_output_refuses_a_bucket():
    assert name_output("a/b", "output") == Path("a/b")
    with pytest.raises(ValueError, match="--output=gs://b/x: give a path on this machine; only --workdir can be in a "):
        name_output("gs://b/x", "output")


def test_json_text_has_null_for_what_is_no_number():
    value = {"a": math.nan, "b": [1.5, -math.inf, (math.inf, {"c": math.nan})], "d": "NaN", "é": None}
    expected = {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": "NaN", "é": None}
    for indent in (None, 2):
        text = json_text(value, indent)
        assert json.loads(text, parse_constant=refuse) == expected
        assert ("\n" in text) == bool(indent)
        assert "é" in text
    assert json_text({"b": 1, "a": [2]}, sort_keys=True) == '{"a": [2], "b": 1}'


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', b'[{"b": {"c": 1, "a": 1, "a": 1}}]'])
def test_parse_json_refuses_two_values_of_one_key(text):
    with pytest.raises(ValueError, match="it gives 'a' twice in one object"):
        parse_json(text)
    assert parse_json('[{"a": 1}, {"a": 1.50}]', parse_float=str) == [{"a": 1}, {"a": "1.50"}]


# Texts that no file keeps: digests, frames between our own processes, and scripts that run without this package.
_NO_FILES = {
    *("run/fingerprint.py", "data/hygiene_cache.py", "processes/rollcall.py", "verify/pool/worker.py"),
    *("data/control_tokens.py", "data/template_process.py", "data/template_worker.py"),
    *("bench/peers/generate_transformers.py", "bench/peers/process.py", "bench/peers/grpo_tunix.py"),
    *("bench/peers/grpo_trl.py", "bench/peers/generate_vllm.py"),
}


# Of what this program or a library wrote, not a person: the lock of a run, a tokenizer in memory, a score as JSON.
_OWN_TEXTS = {
    *("run/lock.py", "processes/distributed.py", "data/stops.py", "evaluation/answers.py", "verify/pool/process.py"),
    "compare/equivalence.py",
}


def test_one_function_each_reads_and_writes_the_json_of_the_package():
    package, found = ROOT / "nft_jax", {"read": set(), "written": set()}
    for path in package.rglob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
        }
        for kind, functions in (("read", {"load", "loads"}), ("written", {"dump", "dumps"})):
            if names & functions:
                found[kind].add(str(path.relative_to(package)))
    assert found["written"] - _NO_FILES == found["read"] - _NO_FILES - _OWN_TEXTS == {"files.py"}


def _without_encoding(path: Path) -> Iterator[str]:
    """Yields the calls of a module that read or write text as the locale of the machine says."""
    places = {"read_text": 0, "write_text": 1}
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or any(each.arg == "encoding" for each in call.keywords):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        mode = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else ""
        opens = isinstance(call.func, ast.Name) and name == "open" and "b" not in str(mode)
        if opens or (name in places and len(call.args) <= places[name]):
            yield f"{path.relative_to(ROOT)}:{call.lineno}"


def test_no_file_depends_on_the_locale():
    assert [place for path in (ROOT / "nft_jax").rglob("*.py") for place in _without_encoding(path)] == []
