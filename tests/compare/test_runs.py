"""A study keeps finished runs; a damaged one is set aside and carried out again, never read for a result."""

import json

import pytest

from nft_jax.compare.runs import MARK_METRICS, Cost, check_run
from nft_jax.compare.study import _read_kept

SCORE = {"greedy": 0.5, "sampled": 0.25, "entropy": 0.7, "length": 3.0, "pass_at": {"1": 0.25, "2": 0.5}}
MARK = {"greedy": 0.5, "sampled": 0.25, "held_out_entropy": None} | dict.fromkeys(Cost._fields, 1)
RUN = {"curve": [MARK | dict.fromkeys(MARK_METRICS)] * 2, "test": SCORE}


def test_read_kept_returns_a_whole_run_and_none_without_one(tmp_path):
    path = tmp_path / "run.json"
    assert _read_kept(path, check_run) is None
    path.write_text(json.dumps(RUN))
    assert _read_kept(path, check_run) == RUN


DAMAGES = {f"without {name}": {key: value for key, value in RUN.items() if key != name} for name in RUN}
DAMAGES |= {f"score without {name}": RUN | {"test": SCORE | {name: None}} for name in SCORE}
DAMAGES |= {f"mark without {name}": RUN | {"curve": [{**MARK, name: "text"}]} for name in MARK}
DAMAGES |= {"no marks": RUN | {"curve": []}, "a list": [RUN], "nothing": None, "marks of text": RUN | {"curve": ["a"]}}
TEXTS = {name: json.dumps(values) for name, values in DAMAGES.items()}
TEXTS |= {"cut": json.dumps(RUN)[:100], "empty": "", "zeros": "\0" * 50, "deep": "[" * 100_000}


@pytest.mark.parametrize("damage", TEXTS)
def test_read_kept_sets_a_damaged_run_aside(tmp_path, damage, capsys):
    path = tmp_path / "run.json"
    path.write_text(TEXTS[damage])
    assert _read_kept(path, check_run) is None
    assert not path.exists()
    assert (tmp_path / "run.json.damaged").read_text() == TEXTS[damage]
    printed = capsys.readouterr().err
    assert f"{path} is damaged: " in printed
    assert "it is set aside as run.json.damaged and made anew" in printed
