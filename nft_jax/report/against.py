"""Two runs' answers to the same held-out problems: what is fixed, broken and unchanged, over all and by kind."""

from pathlib import Path

from nft_jax.evaluation.paired import are_correct, compare_rows, format_difference, pair_rows
from nft_jax.evaluation.tables import format_table
from nft_jax.report.answers import greedy_of
from nft_jax.run.workdir import HELD_OUT_FOLDER

SPLITS = ("test", "validation")
# By whether the greedy answer is correct here and there.
OUTCOMES = {
    (True, False): "fixed",
    (False, True): "broken",
    (True, True): "both correct",
    (False, False): "both incorrect",
}
HEAD = ("problems", "in common", *OUTCOMES.values(), "greedy", "sampled")


def compare_runs(workdir: Path, other: Path, most: int) -> dict:
    """Compares the last answers of two runs to the held-out problems that they have in common.

    Args:
      most: Most answers that are returned, those that differ first.

    Returns:
      {"run": the other's folder, "name": its name, "split", "table": rows under `HEAD`, "problems": their number,
      "answers": [{"prompt", "reference", "kind", "outcome", "here", "there"}]}. The last two columns of the table are
      differences, here − there, with 95 % intervals by paired bootstrap.

    Raises:
      ValueError: When a run has no held-out answers yet, or the two have no problem in common.
    """
    split = next((name for name in SPLITS if _last_file(workdir, name).is_file()), SPLITS[0])
    files = [_last_file(folder, split) for folder in (workdir, other)]
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is missing: a run writes it when it is finished and has {split} problems")
    pairs = pair_rows(*files)
    kinds = sorted({here.get("kind", "") for here, _ in pairs})
    table = [_row(split, pairs)]
    if len(kinds) > 1:
        by_kind = {kind: [pair for pair in pairs if pair[0].get("kind", "") == kind] for kind in kinds}
        table += [_row(f"{split}, {kind or 'without a kind'}", some) for kind, some in by_kind.items()]
    answers = [_describe(here, there) for here, there in pairs]
    answers.sort(key=lambda row: row["outcome"].startswith("both"))
    return {
        "run": str(other),
        "name": other.name,
        "split": split,
        "table": table,
        "answers": answers[:most],
        "problems": len(pairs),
    }


def tabulate_runs(comparison: dict) -> str:
    """Returns the table of a comparison for a terminal."""
    return f"against {comparison['run']}\n{format_table(comparison['table'], HEAD)}"


def _last_file(workdir: Path, split: str) -> Path:
    return workdir / HELD_OUT_FOLDER / f"{split}_final.jsonl"


def _row(name: str, pairs: list[tuple[dict, dict]]) -> tuple[str, ...]:
    outcomes = [_find_outcome(*pair) for pair in pairs]
    counts = [str(outcomes.count(outcome)) for outcome in OUTCOMES.values()]
    return name, str(len(pairs)), *counts, *map(format_difference, compare_rows(pairs).values())


def _find_outcome(here: dict, there: dict) -> str:
    return OUTCOMES[are_correct(here)[0], are_correct(there)[0]]


def _describe(here: dict, there: dict) -> dict:
    """Returns a problem with both greedy answers to it."""
    return {
        "prompt": here["prompt"],
        "reference": here["reference"],
        "kind": here.get("kind", ""),
        "outcome": _find_outcome(here, there),
        "here": greedy_of(here),
        "there": greedy_of(there),
    }
