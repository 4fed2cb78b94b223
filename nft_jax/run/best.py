"""The best checkpoint of a run: the saved step with the best validation score or loss."""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nft_jax.processes import distributed
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.json_files import NUMBER_OR_NONE, read_json, read_lines
from nft_jax.run.workdir import Workdir

BEST_FILE = "best.json"
NONE = "none"
LOSS = "loss"  # the lowest is the best; of any other kind the highest


class Best:
    """Keeps the best step saved while a run goes on, and names it in `best.json`. Step 0 has no checkpoint.

    It starts from the rows of `evaluation.jsonl` whose steps are saved, so rows of later steps must be removed before.

    Args:
      kind: The score that counts: "greedy", "sampled", "loss" or "none".
      folder: The workdir.
      checkpoints: The checkpoints in it, which keep the best step.
    """

    def __init__(self, kind: str, folder: Workdir, checkpoints: Checkpoints):
        self.kind, self.folder, self.checkpoints = kind, folder, checkpoints
        scores = {} if kind == NONE else dict.fromkeys((kind, f"{kind}_error"), NUMBER_OR_NONE)
        rows = read_lines(folder.path / "evaluation.jsonl", {"step": int} | scores)
        self._keep(find_best_row(rows, kind, checkpoints.steps))

    def consider(self, row: dict, save: Callable[[], None]) -> None:
        """Saves the step of a new row of `evaluation.jsonl` by `save()` if its score is the best so far."""
        kind = self.kind
        if kind == NONE or not row["step"]:
            return
        # All processes save or none does; process 0 may have read more rows than the others.
        if not distributed.any_process(self.row is None or _rank(row, kind) > _rank(self.row, kind)):
            return
        save()
        self._keep(row)
        if row[kind] is not None:
            # A run removes the checkpoints of its warm start.
            use = "; --step=best takes it" if self.folder.run == self.folder.path else ""
            print(f"  the best so far: step {row['step']}, {kind} {row[kind]:.3f}{use}", flush=True)

    def _keep(self, row: dict | None) -> None:
        self.row = row
        if row is not None:
            self.checkpoints.best = row["step"]
            values = {"step": row["step"], "score": self.kind}
            self.folder.write_json(BEST_FILE, values | {"value": row[self.kind], "error": row[f"{self.kind}_error"]})


def find_best_row(rows: Sequence[dict], kind: str, steps: Collection[int]) -> dict | None:
    """Returns the first row of `evaluation.jsonl` with the best score among those of `steps`; None without any."""
    scored = [row for row in rows if row["step"] in steps]
    return max(scored, key=lambda row: _rank(row, kind), default=None) if kind != NONE else None


def _rank(row: dict, kind: str) -> float:
    """Returns a number that is higher for a better score; a score that was not finite is None, and the worst."""
    score = row[kind]
    if score is None:
        return -math.inf
    return -score if kind == LOSS else score


def resolve_step(step: str | None, workdir: Path) -> int | None:
    """Returns the step that `--step` names: a number, or "best" for that of the run's `best.json`; None for None.

    Raises:
      FileNotFoundError: if the run has no best step yet.
      ValueError: for anything else.
    """
    if step is None or (step.isascii() and step.isdecimal()):
        return None if step is None else int(step)
    if step != "best":
        raise ValueError(f"--step={step}: give the number of a step, 0 or more, or 'best'")
    file = workdir / BEST_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"--step=best: there is no {file}; a run with validation problems and config.record.best_by writes it when "
            f"it evaluates a step"
        )
    best = read_json(file, {"step": int})["step"]
    with Checkpoints(workdir) as checkpoints:
        if best not in checkpoints.steps:
            saved = ", ".join(map(str, checkpoints.steps)) or "none"
            raise FileNotFoundError(f"--step=best: step {best} is not saved, or not yet; saved steps: {saved}")
    return best
