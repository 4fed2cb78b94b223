"""One HTML page of a run, without a server: scores, curves, answers by token, held-out answers, settings."""

import base64
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from nft_jax.config import Config, to_dict
from nft_jax.evaluation.stages import tabulate_stages
from nft_jax.files import atomically, json_text
from nft_jax.printing import visible
from nft_jax.report.against import HEAD
from nft_jax.report.answers import read_held_out, read_rollouts, shorten
from nft_jax.report.slots import read_slots
from nft_jax.run.json_files import read_json, read_lines
from nft_jax.run.workdir import PAGE_FILE, RESULT_FILE, RUN_FILE

SCRIPTS = ("multipliers.js", "common.js", "math.js", "tokens.js", "viewer.js", "held_out.js", "slots.js")


def write_page(
    workdir: Path, config: Config, results: dict | None, drawing: bytes, comparisons: Sequence[dict] = ()
) -> Path:
    """Writes `report.html` of the run in `workdir`, and returns its path.

    Args:
      results: What `result.json` holds: {part: {stage: score}}; None for a run that is not finished.
      drawing: The curves as SVG.
      comparisons: With other runs, from `against.compare_runs`.

    Raises:
      ValueError: when a file of the run is damaged.
    """
    rollouts, note = read_rollouts(workdir)
    held_out, slots, steps = read_held_out(workdir), read_slots(workdir), read_lines(workdir / "metrics.jsonl")
    columns, rows = tabulate_stages(results or {})
    data = {
        "rollouts": rollouts,
        "questions": _shorten_all(rollouts, held_out, comparisons),
        "heldOut": held_out,
        "against": comparisons,
        "slots": slots,
        "ratios": {row["step"]: row.get("ratio_max_by_update", []) for row in steps},
        "options": _viewer_options(config),
    }
    page = _environment().get_template("page.html")
    text = page.render(
        title=title_of(config),
        run=workdir.name,
        subtitle=describe_steps(steps),
        columns=columns,
        rows=rows,
        against_columns=HEAD,
        against=comparisons,
        curves=base64.b64encode(drawing).decode(),
        has_rollouts=bool(rollouts),
        rollouts_note=note,
        has_slots=bool(slots),
        start=_read_start(workdir),
        headline=describe_gain(columns, rows),
        settings=list(_flatten(to_dict(config))),
        data=_script_json(data),
        css=_read("page.css"),
        code=jinja2.utils.markupsafe.Markup("\n").join(map(_read, SCRIPTS)),
    )
    with atomically(workdir / PAGE_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return workdir / PAGE_FILE


def title_of(config: Config) -> str:
    """Returns what the picture and the page of a run are called."""
    return f"{config.loss.name}, seed {config.seed}"


def describe_steps(steps: list[dict]) -> str:
    """Returns a line that says how many steps a run took, and how long."""
    if not steps or "tokens" not in steps[-1]:
        return f"{len(steps)} steps"
    minutes = sum(row["seconds"] for row in steps) / 60
    tokens = sum(row["tokens"] for row in steps)
    return f"{len(steps)} steps, {tokens:,} sampled tokens, {minutes:.1f} minutes of steps"


def describe_gain(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns what a run improved, by how much: a line for each row of the table of stages that is a score."""
    lines = []
    for part, measure, *scores, gain in rows:
        if gain:
            stages = " → ".join(f"{name} {score}" for name, score in zip(columns[2:-1], scores, strict=True))
            lines.append(f"{part}, {measure}: {stages}; {columns[-1]}: {gain}")
    return lines


def _read_start(workdir: Path) -> str:
    """Returns what the run said of itself at its start, control characters as escapes."""
    path = workdir / RUN_FILE
    return "\n".join(map(visible, read_json(path).get("start", "").split("\n"))) if path.is_file() else ""


def _shorten_all(rollouts: list[dict], held_out: dict[str, list[dict]], comparisons: Sequence[dict]) -> dict[str, str]:
    """Returns the prompts of the page without their template."""
    sets = [[group["prompt"] for rollout in rollouts for group in rollout["groups"]]]
    sets += [[row["prompt"] for row in rows] for rows in held_out.values()]
    sets += [[row["prompt"] for row in comparison["answers"]] for comparison in comparisons]
    return {prompt: text for prompts in sets for prompt, text in shorten(prompts).items() if text != prompt}


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


def _viewer_options(config: Config) -> dict:
    """Returns where the controls of the viewer begin: at the run's own loss, if the viewer has it."""
    name, options = config.loss.name, config.loss.options
    known = {"epsilon": "epsilon", "negative_weight": "lambda", "omega": "omega"}
    known |= {"clip_low": "clipLow", "clip_high": "clipHigh"}
    chosen = {known[option]: value for option, value in options.items() if option in known}
    return chosen | ({"loss": name} if name in ("nft", "grpo", "dapo") else {})


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
