"""Which step is the best, and what `--step` names."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from nft_jax.run.best import Best, find_best_row, resolve_step
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.workdir import Workdir
from nft_jax.state import State

ROWS = [
    {"step": step, "greedy": greedy, "greedy_error": None, "sampled": sampled, "sampled_error": 0.1}
    for step, greedy, sampled in ((0, 0.9, 0.9), (2, 0.3, 0.5), (4, 0.6, 0.1), (6, 0.6, 0.2), (8, 0.8, 0.0))
]


@pytest.mark.parametrize(
    ("kind", "steps", "best"),
    [
        ("greedy", (2, 4, 6, 8), 8),
        ("greedy", (2, 4, 6), 4),  # the first of equal ones
        ("greedy", (6, 7), 6),
        ("sampled", (2, 4, 6, 8), 2),
        ("greedy", (), None),
        ("none", (2, 4), None),
    ],
)
def test_find_best_row_takes_only_saved_steps(kind, steps, best):
    row = find_best_row(ROWS, kind, steps)
    assert (row and row["step"]) == best
    assert find_best_row([], kind, steps) is None


def begun(folder: Path, kind: str, *saved: int) -> Best:
    """A run in which these steps are saved."""
    return Best(kind, Workdir(folder), SimpleNamespace(steps=saved, best=None))


def test_best_consider_saves_each_step_that_is_better_than_all_before(tmp_path, capsys):
    saved = []
    best = begun(tmp_path, "greedy")
    for row in ROWS:
        best.consider(row, lambda row=row: saved.append(row["step"]))
    assert saved == [2, 4, 8]
    assert best.checkpoints.best == 8
    assert capsys.readouterr().out.count("the best so far") == 3
    expected = {"step": 8, "score": "greedy", "value": 0.8, "error": None}
    assert json.loads((tmp_path / "best.json").read_text()) == expected
    # Resumed from step 6: what was evaluated later is forgotten.
    (tmp_path / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    best = begun(tmp_path, "greedy", 2, 4, 6)
    assert best.checkpoints.best == json.loads((tmp_path / "best.json").read_text())["step"] == 4
    best.consider(ROWS[3], lambda: pytest.fail("it is not better"))
    best.consider(ROWS[4], lambda: saved.append(8))
    assert best.checkpoints.best == 8
    none = begun(tmp_path, "none", 2, 4)
    none.consider(ROWS[4], lambda: pytest.fail("record.best_by is none"))
    assert none.checkpoints.best is None


def test_resolve_step_takes_a_number_or_best(tmp_path):
    assert resolve_step(None, tmp_path) is None
    assert resolve_step("0", tmp_path) == 0
    assert resolve_step("40", tmp_path) == 40
    for wrong in ("bst", "-1", "1.5", ""):
        with pytest.raises(ValueError, match=f"--step={wrong}: give the number of a step, 0 or more, or 'best'"):
            resolve_step(wrong, tmp_path)
    with pytest.raises(FileNotFoundError, match="--step=best: there is no .*best.json"):
        resolve_step("best", tmp_path)
    (tmp_path / "best.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(FileNotFoundError, match="step 3 is not saved, or not yet; saved steps: none"):
        resolve_step("best", tmp_path)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(3, State({"x": jnp.zeros(2)}, {"y": jnp.zeros(2)}, jnp.int32(3), jnp.int32(0), None, None), {})
    assert resolve_step("best", tmp_path) == 3
