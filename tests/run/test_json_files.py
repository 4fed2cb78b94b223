"""`read_json`, `read_lines` and `set_aside`: what is damaged is named, and nothing is lost."""

import pytest

from nft_jax.run.json_files import NUMBER, NUMBER_OR_NONE, find_fault, read_json, read_lines, set_aside

WHOLE = b'{"step": 1, "x": 0.1}\n{"step": 2, "x": null}\n'
NO_OBJECTS = [b'{"step": 2, "x"', b"12", b"\xff", b"null", b"[]", b'[["step", 2]]', b'"text"', b"\0" * 9, b"[" * 10**5]


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 3, "x": 0.', b'{"step": 3', b"{", b'{"step": 3, "x": "caf\xc3', b"\0" * 40, b'{"st\n', b"12", b"\n\n"],
)
def test_read_lines_ignores_a_last_line_that_is_half_written(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + torn)
    assert read_lines(path) == [{"step": 1, "x": 0.1}, {"step": 2, "x": None}]


@pytest.mark.parametrize("bad", NO_OBJECTS, ids=lambda bad: repr(bad[:9]))
def test_read_lines_names_a_bad_line_in_the_middle(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(bad.join([b'{"step": 1}\n', b'\n{"step": 3}\n']))
    with pytest.raises(ValueError, match=r"metrics.jsonl:2 is no JSON object .*: repair or remove the line"):
        read_lines(path)


@pytest.mark.parametrize("bad", [b"{}", b'{"step": null}', b'{"step": true}', b'{"step": "3"}', b'{"step": 3.0}'])
def test_read_lines_names_a_line_without_what_is_needed_even_the_last(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + bad)
    with pytest.raises(ValueError, match="metrics.jsonl:3 needs a whole number as 'step' and has "):
        read_lines(path, {"step": int})


def test_read_lines_of_a_missing_file_are_none(tmp_path):
    assert read_lines(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("bad", [b"", *NO_OBJECTS], ids=lambda bad: repr(bad[:9]))
def test_read_json_names_a_file_that_is_no_object(tmp_path, bad):
    path = tmp_path / "best.json"
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=r"best.json (is no JSON|holds a JSON).*: repair or remove the file"):
        read_json(path)


def test_find_fault_names_what_is_missing_or_of_another_kind():
    kinds = {"a": int, "b": NUMBER, "c": NUMBER_OR_NONE, "d": list}
    values = {"a": 1, "b": 1.5, "c": None, "d": []}
    assert find_fault(values, kinds) == ""
    for name, wrong in (("a", 1.0), ("a", True), ("b", None), ("b", False), ("c", "1"), ("d", {})):
        assert find_fault(values | {name: wrong}, kinds).startswith("needs a"), name
        assert repr(name) in find_fault(values | {name: wrong}, kinds)
    assert "and has nothing" in find_fault({}, kinds)


def test_set_aside_keeps_every_damaged_file(tmp_path, capsys):
    path = tmp_path / "best.json"
    for number in range(3):
        path.write_text(str(number))
        set_aside(path, f"{path} is no JSON object")
    there = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert there == {"best.json.damaged": "0", "best.json.damaged.2": "1", "best.json.damaged.3": "2"}
    assert f"{path} is no JSON object; it is set aside as best.json.damaged.3 and made anew" in capsys.readouterr().err
