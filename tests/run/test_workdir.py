"""`Workdir`: the files of a run, and groups as text."""

import json
import os

import jax
import numpy as np
import pytest

from helpers.experiments import small
from nft_jax.config import to_dict
from nft_jax.data.prompts import PromptTable
from nft_jax.run.rollouts import TokenRecord, describe_groups
from nft_jax.run.workdir import PACKAGES, Workdir, as_json
from nft_jax.types import SeenTokens, Totals, WatchedGroups
from nft_jax.update.groups import empty_groups
from nft_jax.verify.findings import CUT, Finding, key_of


class Letters:
    """A tokenizer in which id i is the i-th letter."""

    def decode_batch(self, rows):
        return ["".join("abcdefgh"[i] for i in row) for row in rows]

    def token_texts(self, ids):
        return [self.decode_batch([[i]])[0] for i in ids]


def two_groups():
    groups = jax.device_get(empty_groups(2, 2, 3))
    return groups._replace(
        prompt_Q=np.array([1, 0], np.int32),
        token_QKT=np.array([[[1, 2, 0], [3, 0, 0]], [[4, 5, 6], [7, 7, 0]]], np.int32),
        length_QK=np.array([[2, 1], [3, 2]], np.int32),
        truncated_QK=np.array([[False, False], [True, False]]),
        verdict_QK=np.array([[1, 2], [0, 3]], np.int32),
        rate_Q=np.array([1 / 3, 0], np.float32),
    )


SEEN = SeenTokens(*(np.full((1, 2, 3), value, np.float32) for value in (-0.5, -0.25, 0.123456, 1.5)))
TABLE = PromptTable(np.zeros((2, 4), np.int32), np.ones(2, np.int32), ["4", "5"], ["2+2=", "2+3="], [], 0)


def test_describe_groups_has_the_tokens_of_groups_that_are_scored():
    def describe(update, groups=None, *, recomputed=False):
        watched = WatchedGroups(np.array([1]), np.array([update]), SEEN)
        record = TokenRecord(watched, np.full((1, 2, 3), -0.75, np.float32), recomputed)
        return list(describe_groups(groups or two_groups(), TABLE, Letters(), record))

    first, second = describe(0)
    assert "tokens" not in first and second["update"] == 0
    assert [answer["texts"] for answer in second["tokens"]] == [["e", "f", "g"], ["h", "h"]]
    always = {"texts": ["h", "h"], "sampler": [0, 0], "after": [-0.75] * 2}
    seen = {"old": [-0.5] * 2, "new": [-0.25] * 2, "entropy": [0.1235] * 2, "multiplier": [1.5] * 2}
    # The first update has the sampler's weights; a later one has not, unless π_old was computed again with them.
    assert second["tokens"][1] == always | seen | {"gap": [0.25] * 2}
    assert describe(1)[1]["tokens"][1] == always | seen
    assert describe(1, recomputed=True)[1]["tokens"][1] == always | seen | {"gap": [0.5] * 2}
    older = two_groups()._replace(age_QK=np.array([[0, 0], [0, 1]]))
    assert describe(0, older)[1]["tokens"][1] == always | seen
    # A group that no update trains.
    assert describe(-1)[1]["tokens"][1] == always and describe(-1)[1]["update"] is None


def test_describe_groups_has_what_the_grader_found():
    found = {key_of(1, [1, 2]): Finding("b", ""), key_of(1, [3]): Finding(None, "no number")}
    first, second = describe_groups(two_groups(), TABLE, Letters(), None, found)
    assert (first["extracted"], first["reasons"]) == (["b", None], ["", "no number"])
    # The first is cut, and nothing is known of the second.
    assert (second["extracted"], second["reasons"]) == ([None, None], [CUT.reason, None])


def test_describe_groups_has_prompts_and_answers_as_text():
    assert list(describe_groups(two_groups(), TABLE, Letters())) == [
        {
            "prompt": "2+3=",
            "reference": "5",
            "rate": 0.3333,
            "answers": ["bc", "d"],
            "verdicts": ["correct", "unparsed"],
            "extracted": [None, None],
            "reasons": [None, None],
            "truncated": [False, False],
            "lengths": [2, 1],
        },
        {
            "prompt": "2+2=",
            "reference": "4",
            "rate": 0.0,
            "answers": ["efg", "hh"],
            "verdicts": ["incorrect", "timeout"],
            "extracted": [None, None],
            "reasons": [CUT.reason, None],
            "truncated": [True, False],
            "lengths": [3, 2],
        },
    ]


# Files.


def rows(path):
    return [json.loads(row) for row in path.read_text().splitlines()]


def test_workdir_write_run_writes_config_and_provenance(tmp_path):
    config = small(seed=7)
    Workdir(tmp_path / "deep" / "run").write_run(config, "xla")
    folder = tmp_path / "deep" / "run"
    assert json.loads((folder / "config.json").read_text()) == to_dict(config)
    run = json.loads((folder / "run.json").read_text())
    assert run["seed"] == 7
    assert run["commit"]
    assert run["versions"].keys() == set(PACKAGES)
    assert run["versions"]["jax"] == jax.__version__
    assert "--xla_force_host_platform_device_count=8" in run["xla_flags"]
    assert len(run["devices"]) == jax.device_count()
    assert run["attention"] == "xla"
    assert run["command"]


def test_workdir_refuses_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir=.*file/run can't be written"):
        Workdir(tmp_path / "file" / "run")


def test_workdir_remove_after_removes_the_lines_of_later_steps(tmp_path):
    folder = Workdir(tmp_path)
    folder.remove_after(3)  # there is nothing yet
    for step in (1, 2, 3, 4, 5):
        folder.append({"step": step, "reward": None})
        folder.append({"step": step}, file="evaluation.jsonl")
    folder.remove_after(3)
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert len(rows(tmp_path / "evaluation.jsonl")) == 5
    folder.append({"step": 4})
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    folder.remove_after(0, file="evaluation.jsonl")
    assert rows(tmp_path / "evaluation.jsonl") == []
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["evaluation.jsonl", "metrics.jsonl"]


WHOLE = b'{"step": 1, "x": 0.1}\n{"step": 2, "x": null}\n'


def test_workdir_remove_after_keeps_a_line_that_lacks_only_its_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE.rstrip())
    Workdir(tmp_path).remove_after(9)
    assert path.read_bytes() == WHOLE


def test_workdir_remove_after_removes_a_last_line_that_is_half_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + b'{"step": 3')
    folder = Workdir(tmp_path)
    assert folder.remove_after(1) == [2]
    folder.append({"step": 2})
    assert [row["step"] for row in rows(path)] == [1, 2]


@pytest.mark.parametrize("bad", [b'{"step": 2, "x"', b'{"x": 1}'])
def test_workdir_remove_after_loses_nothing_behind_a_bad_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(bad.join([b'{"step": 1}\n', b'\n{"step": 3}\n']))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="metrics.jsonl:2 "):
        Workdir(tmp_path).remove_after(1)
    assert path.read_bytes() == before


def test_workdir_remove_after_has_the_new_file_on_the_disk_first(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.read_bytes())))
    Workdir(tmp_path).remove_after(1)
    assert synced == [(path.stat().st_ino, WHOLE)]
    assert path.read_bytes() == b'{"step": 1, "x": 0.1}\n'


def test_workdir_write_rollouts_writes_an_object_for_each_group(tmp_path):
    folder = Workdir(tmp_path)
    folder.write_rollouts(12, describe_groups(two_groups(), TABLE, Letters()))
    assert rows(tmp_path / "rollouts" / "step_000012.jsonl") == list(describe_groups(two_groups(), TABLE, Letters()))
    folder.write_rollouts(12, describe_groups(two_groups(), TABLE, Letters()))  # a resumed run takes a step again
    assert len(rows(tmp_path / "rollouts" / "step_000012.jsonl")) == 2


def test_workdir_is_written_by_process_0_only(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    folder = Workdir(tmp_path / "run")
    folder.append({"step": 1})
    folder.write_json("result.json", {})
    folder.remove_after(0)
    folder.write_rollouts(1, describe_groups(two_groups(), TABLE, Letters()))
    assert not (tmp_path / "run").exists()


def test_workdir_write_json_takes_named_tuples_by_as_json(tmp_path):
    totals = Totals(1.0, 2.0, 3.0)
    Workdir(tmp_path).write_json("result.json", {"test": {"base": as_json(totals)}})
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored == {"test": {"base": {"answers": 1.0, "tokens": 2.0, "pairs": 3.0}}}


def test_check_space_measures_the_disk_of_a_folder_that_another_process_has_yet_to_make(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    folder = Workdir(tmp_path / "run" / "warm_start")
    folder.check_space(1)
    with pytest.raises(ValueError, match="make room"):
        folder.check_space(2**80)


@pytest.mark.parametrize("name", ["a\x1b[2J", "\u202ea", "a\x7f"])
def test_workdir_refuses_a_name_with_control_characters(tmp_path, name):
    with pytest.raises(ValueError, match="has control characters"):
        Workdir(tmp_path / name)
    assert not any(tmp_path.iterdir())
