"""The best checkpoint of a run: of the saved steps the one with the highest score of the kind `record.best_by`."""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nft_jax.processes import distributed
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.workdir import Workdir, read_lines

FILE = "best.json"
NONE = "none"


class Best:
    """Keeps the best step saved, and named in `best.json`, while a run goes on; step 0 is no checkpoint and never it.

    It begins with what the run's `evaluation.jsonl` says of the steps that are saved: rows are to be dropped before.
    """

    def __init__(self, kind: str, folder: Workdir, checkpoints: Checkpoints):
        self.kind, self.folder, self.checkpoints = kind, folder, checkpoints
        self._keep(best_row(read_lines(folder.path / "evaluation.jsonl"), kind, checkpoints.steps))

    def offer(self, row: dict, save: Callable[[], None]) -> None:
        """`row` is that of a step that was evaluated just now; `save()` saves it, where it is not saved already."""
        kind = self.kind
        if kind == NONE or not row["step"]:
            return
        # All save or none does: process 0 may have read more of what was.
        if not distributed.any_process(self.row is None or row[kind] > self.row[kind]):
            return
        save()
        self._keep(row)
        print(f"  the best so far: step {row['step']}, {kind} {row[kind]:.3f}; --step=best takes it", flush=True)

    def _keep(self, row: dict | None) -> None:
        self.row = row
        if row is not None:
            self.checkpoints.best = row["step"]
            values = {"step": row["step"], "score": self.kind}
            self.folder.write(FILE, values | {"value": row[self.kind], "error": row[f"{self.kind}_error"]})


def best_row(rows: Sequence[dict], kind: str, steps: Collection[int]) -> dict | None:
    """The best row of `evaluation.jsonl` among those of `steps`, the first of equal ones; None: there is none."""
    scored = [row for row in rows if row["step"] in steps]
    return max(scored, key=lambda row: row[kind], default=None) if kind != NONE else None


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
            f"--step=best: {file} is not there; a run with validation problems and config.record.best_by writes it when a "
            f"step is evaluated"
        )
    best = json.loads(file.read_text())["step"]
    with Checkpoints(workdir) as checkpoints:
        if best not in checkpoints.steps:
            there = ", ".join(map(str, checkpoints.steps)) or "none"
            raise FileNotFoundError(f"--step=best: step {best} is not saved, or not yet; there are: {there}")
    return best
