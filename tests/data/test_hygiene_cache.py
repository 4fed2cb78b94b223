"""What hygiene found is kept by the digest of the problems and of the rules, and made anew where it is damaged."""

import json
import random

import pytest

from nft_jax.data import hygiene, hygiene_cache
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import clean
from nft_jax.data.hygiene_cache import clean_once

GIVEN = [Problem(text, "1", id=str(n // 2)) for n, text in enumerate(("1+1", "1 + 1", "2+2", "3+3", "3+3 ", "4+4"))]
ASKED = {"a": [Problem("2 + 2", "4", id="t")]}


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of `clean`."""
    seen = []
    monkeypatch.setattr(hygiene, "clean", lambda *given: (seen.append(given), clean(*given))[1])
    return seen


def test_clean_once_finds_the_same_again_without_a_comparison(tmp_path, calls):
    first = clean_once(GIVEN, ASKED, tmp_path)
    # The ids repeat, so that what is kept is known by place.
    assert [problem.problem for problem in first.problems] == ["1+1", "3+3", "4+4"]
    again = clean_once(GIVEN, ASKED, tmp_path)
    assert first == again == clean(GIVEN, ASKED)
    assert len(calls) == len([*tmp_path.iterdir()]) == 1


def test_clean_once_depends_on_everything_that_decides_the_report(tmp_path, calls, monkeypatch):
    changed = [
        (GIVEN[:-1], ASKED),
        (GIVEN[::-1], ASKED),
        ([*GIVEN[:-1], GIVEN[-1]._replace(answer="2")], ASKED),
        ([*GIVEN[:-1], GIVEN[-1]._replace(id="x")], ASKED),
        (GIVEN, {"b": ASKED["a"]}),
        (GIVEN, {}),
        (GIVEN, ASKED | {"b": []}),
        (GIVEN + ASKED["a"], {"a": []}),
    ]
    for number, given in enumerate([(GIVEN, ASKED), *changed], start=1):
        assert clean_once(*given, tmp_path) == clean(*given)
        assert len(calls) == number
    rules = tmp_path / "rules.py"
    rules.write_text("# other rules")
    monkeypatch.setattr(hygiene, "__file__", str(rules))
    clean_once(GIVEN, ASKED, tmp_path / "new")
    assert len(calls) == len(changed) + 2


@pytest.mark.parametrize("seed", range(8))
def test_clean_once_replaces_a_damaged_file(tmp_path, calls, seed):
    expected, draw = clean_once(GIVEN, ASKED, tmp_path), random.Random(seed)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    place = draw.randrange(len(whole) - 1)
    other = bytes([whole[place] ^ draw.randrange(1, 256)])
    path.write_bytes(draw.choice([b"", whole[:place], whole[:place] + other + whole[place + 1 :]]))
    assert clean_once(GIVEN, ASKED, tmp_path) == expected, f"seed {seed}"
    assert (len(calls), path.read_bytes()) == (2, whole)


def test_clean_once_goes_on_where_nothing_can_be_kept(tmp_path, calls, capsys):
    (tmp_path / "file").write_text("")
    assert clean_once(GIVEN, ASKED, tmp_path / "file") == clean(GIVEN, ASKED)
    assert "what hygiene left out is not kept" in capsys.readouterr().err
    assert json.loads(json.dumps(clean(GIVEN, ASKED).to_json()))["kept"] == 3
    assert hygiene_cache._read(tmp_path / "none", GIVEN) is None
