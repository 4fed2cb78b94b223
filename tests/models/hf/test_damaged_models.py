"""A damaged model folder: refused by name before anything is compiled, or read as if it were whole; never a traceback.

`python -m pytest tests/models/hf/test_damaged_models.py -s` prints the seed and the outcomes by kind.
"""

import dataclasses
import json
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from helpers.damaged_models import KINDS, damage_model, write_folder
from helpers.experiments import small
from nft_jax.config import ModelConfig
from nft_jax.experiment import build_experiment
from nft_jax.models import hf

SEED = 18
SECONDS = 5.0
# A setting that names the model's sizes would contradict its config.json.
SIZES = {"width": 256, "heads": 8, "head_size": 32, "layers": 4, "mlp_width": 1024, "tied_embedding": True}


class Read(NamedTuple):
    """What a start takes from a model folder: the settings, the prompts, the ends of an answer and the weights."""

    model: ModelConfig
    prompts: bytes
    ends: tuple
    dtype: str
    weights: list

    def is_same(self, other: "Read") -> bool:
        return self[:4] == other[:4] and all(map(np.array_equal, self.weights, other.weights))


def read(folder: Path, workdir: Path, template: str) -> Read:
    """Reads a folder as `train` does before it compiles."""
    config = small(
        model__path=str(folder),
        data__train=str(workdir / "problems.jsonl"),
        data__template=template,
        **{f"model__{name}": value for name, value in SIZES.items()},
    )
    experiment = build_experiment(config, workdir, jax.devices()[:1])
    weights = experiment.starting_weights()
    experiment.write_model_settings(workdir / "model")
    table, tokenizer = experiment.dataset.tables["train"], experiment.tokenizer
    prompts = table.token_QP.tobytes() + tokenizer.decode([5, 6]).encode()
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]
    settings = dataclasses.replace(experiment.config.model, path="")
    return Read(settings, prompts, tokenizer.eos_ids, hf.read_dtype(folder), leaves)


def give_up(*_):
    raise AssertionError(f"takes over {SECONDS:g} s")


def judge(folder: Path, workdir: Path, template: str, whole: Read) -> str:
    """Returns the outcome of reading a folder; fails for all that is neither refused in short lines nor as before."""
    before, began = signal.signal(signal.SIGALRM, give_up), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 12 * SECONDS)  # a machine with other work is slow
    try:
        found = read(folder, workdir, template)
    except (ValueError, OSError) as error:
        lines = str(error).splitlines()
        assert len(lines) < 12 and all(len(line) < 800 for line in lines), str(error)[:2000]
        assert str(folder) in str(error), error
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        assert time.process_time() - began < SECONDS
    assert found.is_same(whole), "it is read as another model, in silence"
    return "read as before"


@pytest.mark.parametrize("count", [34, pytest.param(102, marks=pytest.mark.slow)])
def test_a_damaged_model_folder_is_refused_or_without_effect(tmp_path, capsys, count):
    drawn, faults, outcomes = random.Random(SEED), [], {kind: Counter() for kind in KINDS}
    proper = write_folder(tmp_path / "proper")
    (tmp_path / "workdir").mkdir()
    rows = [{"problem": f"1+{number}=", "answer": str(1 + number)} for number in range(8)]
    (tmp_path / "workdir" / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = {template: read(proper, tmp_path / "workdir", template) for template in ("chat", "plain")}
    assert whole["chat"].is_same(read(shutil.copytree(proper, tmp_path / "copy"), tmp_path / "workdir", "chat"))
    for number in range(count):
        folder, kind = shutil.copytree(proper, tmp_path / "model"), list(KINDS)[number % len(KINDS)]
        what = damage_model(folder, drawn, kind)
        # A template takes a process and seconds; where the weights alone are damaged, none is needed.
        template = "plain" if any(word in kind for word in ("header", "index", "weight")) else "chat"
        try:
            outcome = judge(folder, tmp_path / "workdir", template, whole[template])
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
            faults.append(f"folder {number}, {what}: {outcome[:600]}")
        outcomes[kind][outcome] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{count} damaged model folders (seed {SEED})")
        for kind, counts in outcomes.items():
            print(f"  {kind}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    assert faults == [], "\n".join(faults)
