"""One HTML page of a run, without a server: scores, curves, answers by token, held-out answers, settings."""

import base64
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from nft_jax.config import Config, to_dict
from nft_jax.evaluation.paired import are_correct, compare_values
from nft_jax.files import atomically, json_text
from nft_jax.report import curves
from nft_jax.run.json_files import read_json, read_lines
from nft_jax.run.workdir import HELD_OUT_FOLDER, RESULT_FILE

PAGE_FILE = "report.html"
# A page stays quick to open: of more text than this, each step shows a part.
MOST_BYTES = 12 * 2**20
MOST_HELD_OUT = 500


def write_page(workdir: Path, config: Config, results: dict | None, against: Sequence[Path] = ()) -> Path:
    """Writes `report.html` of the run in `workdir`, and returns its path.

    Args:
      results: What `result.json` holds: {part: {stage: score}}; None for a run that is not finished.
      against: Other runs, whose last greedy answers to the same test problems are compared with this run's.

    Raises:
      FileNotFoundError: when the run has no metrics yet.
      ValueError: when a file of the run is damaged, or a run of `against` has no test problem in common with it.
    """
    title = f"{config.loss.name}, seed {config.seed}: {workdir.name}"
    steps = read_lines(workdir / "metrics.jsonl")
    rollouts, note = read_rollouts(workdir)
    options = config.loss.options
    data = {
        "rollouts": rollouts,
        "questions": _shorten_prompts(rollouts),
        "heldOut": read_held_out(workdir),
        "options": _viewer_options(config.loss.name, options),
    }
    stages = list(next(iter(results.values()))) if results else []
    page = _environment().get_template("page.html")
    text = page.render(
        title=title,
        subtitle=_describe_steps(steps),
        headline=list(_headline(results or {})),
        stages=stages,
        against=[_compare(workdir, other) for other in against],
        curves=base64.b64encode(curves.draw_svg(workdir, title)).decode(),
        has_rollouts=bool(rollouts),
        rollouts_note=note,
        settings=list(_flatten(to_dict(config))),
        data=_script_json(data),
        css=_read("page.css"),
        multipliers=_read("multipliers.js"),
        viewer=_read("viewer.js"),
    )
    with atomically(workdir / PAGE_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return workdir / PAGE_FILE


def _environment() -> jinja2.Environment:
    files = resources.files("nft_jax.report")
    loader = jinja2.FunctionLoader(lambda name: (files / name).read_text(encoding="utf-8"))
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _read(name: str) -> Any:
    """Returns a part of the page that is ours, and so is not escaped."""
    return jinja2.utils.markupsafe.Markup((resources.files("nft_jax.report") / name).read_text(encoding="utf-8"))


def _script_json(values: Any) -> Any:
    """Returns JSON for a script element; no text in it can end the element or begin a comment."""
    text = json_text(values)
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return jinja2.utils.markupsafe.Markup(escaped)


def _describe_steps(steps: list[dict]) -> str:
    if not steps or "tokens" not in steps[-1]:
        return f"{len(steps)} steps"
    minutes = sum(row["seconds"] for row in steps) / 60
    tokens = sum(row["tokens"] for row in steps)
    return f"{len(steps)} steps, {tokens:,} sampled tokens, {minutes:.1f} minutes of steps"


def _headline(results: dict) -> Iterator[dict]:
    """Yields a row for each part of the held-out problems and each measure, with a value for each stage."""
    for part, stages in results.items():
        for measure in ("greedy", "sampled"):
            values = [_with_error(score[measure], score[f"{measure}_error"]) for score in stages.values()]
            yield {"part": part, "measure": measure, "cells": values}
        cut = [f"{score['truncated']:.1%}" for score in stages.values()]
        yield {"part": part, "measure": "cut at the limit", "cells": cut}


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.1%}" + ("" if error is None else f" ± {error:.1%}")


def _viewer_options(name: str, options: dict) -> dict:
    """Returns where the controls of the viewer begin: at the run's own loss, if the viewer has it."""
    known = {"epsilon": "epsilon", "negative_weight": "lambda", "omega": "omega"}
    known |= {"clip_low": "clipLow", "clip_high": "clipHigh"}
    chosen = {known[option]: value for option, value in options.items() if option in known}
    return chosen | ({"loss": name} if name in ("nft", "grpo", "dapo") else {})


def read_rollouts(workdir: Path, most_bytes: int = MOST_BYTES) -> tuple[list[dict], str]:
    """Reads the saved rollouts: `[{"step", "groups"}]`, and a sentence that says how much of them that is.

    If there is more text than `most_bytes`, each step keeps an equal share: groups with tokens first, then the others
    in the order of the file.

    Raises:
      ValueError: as `read_lines` does.
    """
    paths = sorted((workdir / "rollouts").glob("step_*.jsonl"))
    share = most_bytes // max(len(paths), 1)
    rollouts, kept, total = [], 0, 0
    for path in paths:
        groups = read_lines(path)
        sizes = [len(json_text(group)) for group in groups]
        order = sorted(range(len(groups)), key=lambda q: "tokens" not in groups[q])
        used, chosen = 0, []
        for q in order:
            # The first group is kept however long it is.
            if not chosen or used + sizes[q] <= share:
                chosen.append(q)
                used += sizes[q]
        rollouts.append({"step": int(path.stem.removeprefix("step_")), "groups": [groups[q] for q in sorted(chosen)]})
        kept, total = kept + len(chosen), total + len(groups)
    scored = sum("tokens" in group for rollout in rollouts for group in rollout["groups"])
    part = "all" if kept == total else f"{kept} of"
    return rollouts, f"{part} {total} saved prompts of {len(paths)} steps; {scored} of them token by token (◆)."


def read_held_out(workdir: Path, most: int = MOST_HELD_OUT) -> dict[str, list[dict]]:
    """Reads the greedy answers to the first held-out problems: {split: [{"problem", stage: [answer]}]}."""
    splits: dict[str, list[dict]] = {}
    for path in sorted((workdir / HELD_OUT_FOLDER).glob("*.jsonl"), key=_stage_order):
        split, _, stage = path.stem.rpartition("_")
        lines = read_lines(path)[:most]
        rows = splits.setdefault(split, [{"problem": line["prompt"], "reference": line["reference"]} for line in lines])
        for row, line in zip(rows, lines, strict=True):
            row[stage] = [{"text": line["answers"][0], "correct": are_correct(line)[0]}]
    for rows in splits.values():
        short = _strip_common([row["problem"] for row in rows])
        for row, text in zip(rows, short, strict=True):
            row["problem"] = text
    return splits


def _stage_order(path: Path) -> tuple[str, int]:
    split, _, stage = path.stem.rpartition("_")
    return split, ("pretrained", "base", "final").index(stage)


def _shorten_prompts(rollouts: list[dict]) -> dict[str, str]:
    """Returns each prompt's own text, without the template around it."""
    prompts = list(dict.fromkeys(group["prompt"] for rollout in rollouts for group in rollout["groups"]))
    return dict(zip(prompts, _strip_common(prompts), strict=True))


def _strip_common(texts: list[str]) -> list[str]:
    """Removes what all texts begin and end with."""
    if len(set(texts)) < 2:
        return texts
    start = len(os.path.commonprefix(texts))
    end = len(os.path.commonprefix([text[start:][::-1] for text in texts]))
    return [text[start : len(text) - end] for text in texts]


def _compare(workdir: Path, other: Path) -> dict:
    """Compares the last greedy answers of two runs to the test problems that they have in common."""
    here, there = ({row["prompt"]: are_correct(row)[0] for row in _last_answers(folder)} for folder in (workdir, other))
    common = [prompt for prompt in here if prompt in there]
    if not common:
        raise ValueError(f"--against={other}: it has no test problem in common with {workdir}")
    pairs = [(here[prompt], there[prompt]) for prompt in common]
    paired = compare_values(*zip(*pairs, strict=True))
    half = (paired.high - paired.low) / 2
    return {
        "run": str(other),
        "problems": len(common),
        "fixed": pairs.count((True, False)),
        "broken": pairs.count((False, True)),
        "both": pairs.count((True, True)),
        "neither": pairs.count((False, False)),
        "difference": f"{paired.difference:+.1%} ± {half:.1%}",
    }


def _last_answers(workdir: Path) -> list[dict]:
    path = workdir / HELD_OUT_FOLDER / "test_final.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} is missing: a run writes it when it is finished and has test problems")
    return read_lines(path)


def _flatten(settings: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def read_results(workdir: Path) -> dict | None:
    """Returns what `result.json` holds, None for a run that is not finished."""
    path = workdir / RESULT_FILE
    return read_json(path) if path.exists() else None
