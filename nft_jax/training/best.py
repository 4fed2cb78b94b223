"""The best checkpoint of a run: of the saved steps the one with the highest score of the kind `record.best`."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from nft_jax.training.checkpoint import Checkpoints

FILE = "best.json"
NONE = "none"


def best_row(rows: Sequence[dict], kind: str, steps: Collection[int]) -> dict | None:
    """The best row of `evaluation.jsonl` among those of `steps`, the first of equal ones; None: there is none."""
    scored = [row for row in rows if row["step"] in steps]
    return max(scored, key=lambda row: row[kind], default=None) if kind != NONE else None


def described(row: dict, kind: str) -> dict:
    """What `best.json` says: the step, the kind of score, the score and its standard error."""
    return {"step": row["step"], "score": kind, "value": row[kind], "error": row[f"{kind}_error"]}


def chosen_step(step: str | None, workdir: Path) -> int | None:
    """The step that `--step` names: a number, or `best`, which is that of the run's `best.json`; None for None.

    Raises:
      FileNotFoundError: when the run has no best step, or not yet.
      ValueError: for anything else.
    """
    if step is None or step.isdecimal():
        return None if step is None else int(step)
    if step != "best":
        raise ValueError(f"--step={step}: give the number of a step, 0 or more, or 'best'")
    file = workdir / FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"--step=best: {file} is not there; a run with validation problems and config.record.best writes it when a "
            f"step is evaluated"
        )
    best = json.loads(file.read_text())["step"]
    with Checkpoints(workdir) as checkpoints:
        if best not in checkpoints.steps:
            there = ", ".join(map(str, checkpoints.steps)) or "none"
            raise FileNotFoundError(f"--step=best: step {best} is not saved, or not yet; there are: {there}")
    return best
