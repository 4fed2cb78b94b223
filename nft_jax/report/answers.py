"""The answers that a run saved, as much of them as a page can hold: sampled ones by step, held-out ones by stage."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nft_jax.evaluation.paired import are_correct
from nft_jax.evaluation.stages import order_of
from nft_jax.run.json_files import read_lines
from nft_jax.run.workdir import HELD_OUT_FOLDER

# A page stays quick to open: of more text than this, each step shows a part.
MOST_BYTES = 12 * 2**20
MOST_HELD_OUT = 500
# JSON writes a quotation mark inside a text as \", so this is found at a name alone.
_HAS_TOKENS = b'"tokens":'


def read_rollouts(workdir: Path, most_bytes: int = MOST_BYTES) -> tuple[list[dict], str]:
    """Reads the saved rollouts: `[{"step", "groups"}]`, and a sentence that says how much of them that is.

    If they are longer than `most_bytes`, each step keeps an equal share: groups with tokens first, then the others in
    the order of the file. Each group gets its place there, "place".

    Raises:
      ValueError: as `read_lines` does.
    """
    paths = sorted((workdir / "rollouts").glob("step_*.jsonl"))
    share = most_bytes // max(len(paths), 1)
    rollouts, places, total = [], [], 0

    def choose(lines: Sequence[bytes]) -> list[int]:
        nonlocal places, total
        places, total = _fit(lines, share), total + len(lines)
        return places

    for path in paths:
        groups = read_lines(path, choose=choose)  # a half-written last one is missing
        groups = [{"place": place} | group for place, group in zip(places, groups, strict=False)]
        rollouts.append({"step": int(path.stem.removeprefix("step_")), "groups": groups})
    kept = sum(len(rollout["groups"]) for rollout in rollouts)
    scored = sum("tokens" in group for rollout in rollouts for group in rollout["groups"])
    part = "all" if kept == total else f"{kept} of"
    return rollouts, f"{part} {total} saved prompts of {len(paths)} steps; {scored} of them token by token (◆)."


def _fit(lines: Sequence[bytes], most_bytes: int) -> list[int]:
    """Returns the places of the lines that fit, those with tokens first; the first is kept however long it is."""
    used, chosen = 0, []
    for place in sorted(range(len(lines)), key=lambda q: _HAS_TOKENS not in lines[q]):
        if not chosen or used + len(lines[place]) <= most_bytes:
            chosen.append(place)
            used += len(lines[place])
    return sorted(chosen)


def read_held_out(workdir: Path, most: int = MOST_HELD_OUT) -> dict[str, list[dict]]:
    """Reads the greedy answers to the first held-out problems: {split: [{"prompt", "reference", stage: [answer]}]}."""
    splits: dict[str, list[dict]] = {}
    for path in sorted((workdir / HELD_OUT_FOLDER).glob("*.jsonl"), key=_stage_order):
        split, _, stage = path.stem.rpartition("_")
        lines = read_lines(path, choose=lambda lines: range(min(len(lines), most)))
        rows = splits.setdefault(split, [{"prompt": line["prompt"], "reference": line["reference"]} for line in lines])
        for row, line in zip(rows, lines, strict=True):
            row[stage] = [greedy_of(line)]
    return splits


def greedy_of(line: dict) -> dict:
    """Returns the greedy answer of a held-out problem: its text, verdict, and what the grader found, if it is known."""
    found = {"extracted": line["extracted"][0], "reason": line["reasons"][0]} if "extracted" in line else {}
    return {"text": line["answers"][0], "correct": are_correct(line)[0]} | found


def _stage_order(path: Path) -> tuple[str, tuple[int, str]]:
    split, _, stage = path.stem.rpartition("_")
    return split, order_of(stage)


def shorten(prompts: Iterable[str]) -> dict[str, str]:
    """Returns each prompt without the template around it: without the whole lines that all begin and end with."""
    texts = list(dict.fromkeys(prompts))
    if len(texts) < 2:
        return {text: text for text in texts}
    start = os.path.commonprefix(texts).rpartition("\n")
    end = os.path.commonprefix([text[::-1] for text in texts])[::-1].partition("\n")
    return {text: text.removeprefix("".join(start[:2])).removesuffix("".join(end[1:])) for text in texts}
