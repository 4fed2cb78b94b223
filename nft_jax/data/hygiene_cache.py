"""Keeps what hygiene found in a file, so that the same problems are compared once and not at every start."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath

from nft_jax.data import hygiene, normal_form
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import HygieneReport, Removal
from nft_jax.files import atomically, json_text


def clean_once(
    problems: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]], folder: Path | epath.Path
) -> HygieneReport:
    """Returns `hygiene.clean` of the same arguments; reads it from `folder` where it is known already.

    A file of `folder` belongs to the digest of all problems and of the rules' source, so it is never out of date. A
    damaged one is written anew; a folder that can't be written is printed, and nothing is kept.
    """
    path = folder / f"{_digest(problems, evaluations)}.json"
    report = _read(path, problems)
    if report is not None:
        return report
    report = hygiene.clean(problems, evaluations)
    kept = set(map(id, report.problems))
    left_out = [place for place, problem in enumerate(problems) if id(problem) not in kept]
    text = json_text({"left_out": left_out, "removals": report.removals})
    try:
        with atomically(path) as temporary:
            temporary.write_text(f"{_checksum(text)}\n{text}\n", encoding="utf-8")
    except OSError as error:
        print(f"what hygiene left out is not kept: {error} (NFT_JAX_CACHE=FOLDER chooses a folder)", file=sys.stderr)
    return report


def _read(path: Path | epath.Path, problems: Sequence[Problem]) -> HygieneReport | None:
    """Returns the report that a file holds; None without a file, or for a damaged one."""
    try:
        checksum, text = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, ValueError):
        return None
    if checksum != _checksum(text):
        return None
    values = json.loads(text)
    left_out = set(values["left_out"])
    kept = [problem for place, problem in enumerate(problems) if place not in left_out]
    return HygieneReport(kept, len(problems), [Removal(*each) for each in values["removals"]])


def _digest(problems: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]]) -> str:
    """Returns a digest of everything that decides a report: the problems in order, and the source of the rules."""
    digest = hashlib.sha256()
    for module in (hygiene, normal_form):
        digest.update(Path(module.__file__).read_bytes())
    for name, part in {"": problems, **{f"in {name}": part for name, part in evaluations.items()}}.items():
        digest.update(json.dumps([name, len(part)]).encode())
        for problem in part:
            digest.update(json.dumps([problem.id, problem.problem, problem.answer]).encode())
    return digest.hexdigest()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
