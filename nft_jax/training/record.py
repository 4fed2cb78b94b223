"""The run's folder: what was run, with what, and how it went."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from nft_jax.config import Config, resolved
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.types import Groups
from nft_jax.verify.grade import STATUSES

PACKAGES = (
    "nft_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "sentencepiece",
    "ml_collections",
    "numpy",
)


class RunFolder:
    """Writes `config.json`, `run.json`, `metrics.jsonl` and `rollouts/` of one run; only process 0 writes.

    Raises:
      ValueError: when the folder can't be written, before anything is compiled.
    """

    def __init__(self, path: Path, config: Config):
        self.path = path
        self.writes = jax.process_index() == 0
        if not self.writes:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "config.json").write_text(json.dumps(resolved(config), indent=2) + "\n")
            (path / "run.json").write_text(json.dumps(provenance(config), indent=2) + "\n")
        except OSError as error:
            raise ValueError(f"--workdir={path} can't be written: {error}") from error

    def metrics(self, values: dict, *, file: str = "metrics.jsonl") -> None:
        """Appends one object."""
        if self.writes:
            with open(self.path / file, "a") as out:
                out.write(json.dumps(values) + "\n")

    def result(self, values: dict) -> None:
        """Writes `result.json`: the scores of the base and of the final weights by split."""
        if self.writes:
            (self.path / "result.json").write_text(json.dumps(values, indent=2) + "\n")

    def drop_after(self, step: int, *, file: str = "metrics.jsonl") -> None:
        """Forgets the lines of steps after `step`, which a resumed run takes again."""
        path = self.path / file
        if self.writes and path.exists():
            kept = [row for row in path.read_text().splitlines() if json.loads(row)["step"] <= step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(row + "\n" for row in kept))
            temporary.replace(path)

    def rollouts(self, step: int, groups: Groups, table: PromptTable, tokenizer: Tokenizer) -> None:
        """Writes one object a group: prompt, reference, answers, verdicts, rate, lengths."""
        if not self.writes:
            return
        path = self.path / "rollouts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with open(path, "w") as out:
            for group in described(groups, table, tokenizer):
                out.write(json.dumps(group, ensure_ascii=False) + "\n")


def described(groups: Groups, table: PromptTable, tokenizer: Tokenizer) -> Iterator[dict]:
    """Each group in words."""
    for q, prompt in enumerate(np.asarray(groups.prompt_Q).tolist()):
        ids = [row[:n].tolist() for row, n in zip(groups.token_QKT[q], groups.length_QK[q], strict=True)]
        yield {
            "prompt": table.prompts[prompt],
            "reference": table.answers[prompt],
            "rate": round(float(groups.rate_Q[q]), 4),
            "answers": tokenizer.decode_batch(ids),
            "verdicts": [STATUSES[code] for code in groups.verdict_QK[q]],
            "truncated": groups.truncated_QK[q].tolist(),
            "lengths": groups.length_QK[q].tolist(),
        }


def provenance(config: Config) -> dict:
    """Versions, commit, seed, flags and devices: what it takes to run this again."""
    return {
        "command": sys.argv,
        "seed": config.seed,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
    }


def host_rss_mib() -> float:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss / 2**20


def as_json(value: Any) -> Any:
    """A NamedTuple or dataclass as a dict."""
    return value._asdict() if hasattr(value, "_asdict") else dataclasses.asdict(value)


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit():
    folder = Path(__file__).resolve().parent
    asked = subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return asked.stdout.strip() or None
