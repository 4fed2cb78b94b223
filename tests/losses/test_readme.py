"""The page of the losses: its table is that of the registry, and its example of a loss of one's own runs."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.documents import ROOT, commands, snippets
from helpers.packed_answers import draw_answers, pack
from helpers.small_parts import (
    MODEL,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from nft_jax.config import LossConfig
from nft_jax.losses import LOSSES, resolve
from nft_jax.losses.omega import OMEGAS

PAGE = ROOT / "nft_jax" / "losses" / "README.md"
NAME = "my_losses:surprises"


def table() -> dict[str, list[str]]:
    """The cells of the page's table of all losses, by name."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in re.split(r"(?<!\\) \| ", rest)] for name, rest in rows}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The folder that holds the page's loss as my_losses.py."""
    # Another test's module may have this name.
    monkeypatch.delitem(sys.modules, NAME.partition(":")[0], raising=False)
    (code,) = [code for code in snippets(PAGE, "python") if "# my_losses.py" in code]
    (tmp_path / "my_losses.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_losses", None)


def test_table_of_the_page_is_that_of_the_registry():
    found = {name: (cells[2].strip("`"), cells[3].strip("`")) for name, cells in table().items()}
    assert found == {name: (loss.traits.normalizer, loss.traits.groups) for name, loss in LOSSES.items()}


def test_papers_of_the_table_are_those_of_the_docstrings():
    for name, cells in table().items():
        paper = re.search(r"\d{4}\.\d{5}", cells[5])
        assert paper and paper[0] in LOSSES[name].__doc__, name


def test_page_names_every_omega_that_equals_a_loss():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`omega={omega}`" in text for omega in OMEGAS)


def test_own_loss_of_the_page_reads_entropy_and_sampler(example):
    loss = resolve(NAME, {"floor": 0.3})
    assert (loss.reads, loss.metrics) == (("entropy", "sampler_logp"), ("chosen",))
    packed = pack([draw_answers(seed=12)[:3]], length=30)
    entropy_BT = jnp.where(jnp.arange(30)[None] % 2 == 0, 1.0, 0.1)
    batch = packed.batch._replace(entropy_BT=entropy_BT, sampler_logp_BT=packed.batch.old_logp_BT - 0.5)
    loss_BT, metrics = loss.evaluate(packed.logp_BT, batch)
    chosen_BT = (np.asarray(batch.answer_BT) >= 0) & (np.asarray(entropy_BT) > 0.3)
    expected_BT = -np.exp(0.5) * np.asarray(batch.advantage_BT * packed.logp_BT) * chosen_BT
    np.testing.assert_allclose(loss_BT, expected_BT, rtol=1e-5)
    np.testing.assert_array_equal(metrics["chosen"], chosen_BT)


def test_own_loss_of_the_page_takes_an_update(example):
    step = training_step(small_config(loss=LossConfig(name=NAME)), one_device())
    groups, prompts = random_groups(1, 8, 4), random_prompts(0, 8)

    @jax.jit
    def program(weights, groups):
        packed, totals = step.pack(groups, jnp.int32(8), jax.tree.map(jnp.asarray, prompts), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        return *step.updater.gradient(weights, packed, totals), totals

    gradient, statistics, totals = jax.device_get(program(lively_weights(MODEL), groups))
    assert 0 < statistics.own["chosen"] < totals.tokens
    assert any(np.any(part) for part in jax.tree.leaves(gradient))


@pytest.mark.slow  # A whole run, in a process of its own.
def test_command_of_the_page_trains_with_the_own_loss(example):
    (words,) = [words for words in commands(snippets(PAGE, "bash")[0]) if "nft_jax.train" in words]
    small = ["--config.steps=1", "--config.prompts_per_step=8", "--config.answers_per_prompt=4"]
    small += ["--config.updates_per_step=1", "--config.warm_start.steps=0", "--config.evaluation.every_steps=0"]
    words = [word.replace("runs/mine", str(example / "run")) for word in words]
    environment = os.environ | {"PYTHONPATH": f"{example}{os.pathsep}{ROOT}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *words, *small]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (line,) = (example / "run" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(line)["loss_metrics"]["chosen"] <= 1
    assert json.loads((example / "run" / "config.json").read_text())["loss"]["options"] == {"floor": 0.3}
