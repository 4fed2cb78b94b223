"""The pages beside the notebooks: settings, metrics and files that they name are there, and their snippets run."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.documents import FOLDER, NOTEBOOKS, ROOT, snippets
from helpers.experiments import OPTIMIZER_METRICS, PARTIAL_METRICS, STEP_METRICS
from helpers.runs import MEASURED
from nft_jax.config import load
from nft_jax.config_files import config as shipped_config
from nft_jax.data.dataset import load_dataset
from nft_jax.losses import bind_token_reward, resolve
from nft_jax.verify import grade

LARGEST_PICTURE = 150_000


def test_the_metrics_page_names_metrics():
    """In the first column of its tables, and below its pictures."""
    text = (FOLDER / "reading_the_metrics.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 15
    assert named <= STEP_METRICS | PARTIAL_METRICS | OPTIMIZER_METRICS | MEASURED


def test_the_metrics_page_draws_its_picture(tmp_path, monkeypatch):
    """From runs of which one trained on nothing at a step."""
    (code,) = [code for code in snippets(FOLDER / "reading_the_metrics.md", "python") if "draw_runs" in code]
    rows = [{name: 1.0 for name in STEP_METRICS} | {"step": step} for step in (1, 2, 3)]
    rows[1] |= {"entropy": None, "ratio_max": 0.0}
    for run in re.search(r"RUNS = \((.*)\)", code)[1].replace('"', "").split(", "):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert re.search(rf"^run {run} ?", (FOLDER / "reading_the_metrics.md").read_text(), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "pictures" / "sick_runs.png").exists()


def test_pictures_are_small():
    assert all(picture.stat().st_size < LARGEST_PICTURE for picture in (FOLDER / "pictures").glob("*"))


def test_the_command_that_makes_the_notebooks_a_forks(tmp_path):
    copied = tmp_path / "colab"
    shutil.copytree(FOLDER, copied)
    (command,) = [script for script in snippets(FOLDER / "README.md", "bash") if script.startswith("sed")]
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    for path in (*(copied / notebook.name for notebook in NOTEBOOKS), copied / "README.md"):
        assert "OWNER/REPOSITORY" not in path.read_text().replace(command, "")
        assert "colab.research.google.com/github/YOU/nft_jax/blob/" in path.read_text()
    for notebook in NOTEBOOKS:
        assert r"REPOSITORY, TAG = \"https://github.com/YOU/nft_jax\"" in (copied / notebook.name).read_text()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The files of `your_own.md` in a folder."""
    folder = tmp_path_factory.mktemp("own")
    for code in snippets(FOLDER / "your_own.md", "python"):
        name = re.match(r"# (\w+\.py)\n", code)[1]
        (folder / name).write_text(code)
    return folder


def test_the_loss_of_your_own(own, monkeypatch):
    """On-policy it has Dr. GRPO's gradient, as the notebook says of it."""
    monkeypatch.syspath_prepend(own)
    from nft_jax.compare.multipliers import ratio_multipliers

    mine, theirs = resolve("my_losses:fading", {"width": 0.3}), resolve("dr_grpo", {})
    for correct in (True, False):
        found, expected = (
            ratio_multipliers(loss, np.ones(1, np.float32), rate=0.25, correct=correct) for loss in (mine, theirs)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_verifier_of_your_own(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    statuses = [grade(response, "7", grader="my_graders:integer").status for response in ("so 007", "8", "seven")]
    assert statuses == ["correct", "incorrect", "unparsed"]


def test_the_rewards_of_your_own(own, monkeypatch):
    monkeypatch.syspath_prepend(own)
    verdicts = [grade(text, "7", grader="my_rewards:near", correct_from=1.0) for text in ("so 7", "9", "seven")]
    assert [verdict.status for verdict in verdicts] == ["correct", "incorrect", "incorrect"]
    assert [verdict.earned for verdict in verdicts] == pytest.approx([1, 1 / 3, 0])
    reward = bind_token_reward("my_rewards:fewer_signs", ["7", "-", "--"])
    found = reward(jnp.array([[[0, 1, 2]]]), jnp.array([[2]]))
    np.testing.assert_allclose(found, [[[0, -0.01, 0]]])


def test_the_model_of_your_own(own):
    config = load(runpy.run_path(str(own / "my_config.py"))["get_config"]())
    assert (config.model.layers, config.model.heads, config.model.qkv_bias) == (2, 3, False)


def test_the_data_of_your_own(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(own / "my_data.py"))
    config = shipped_config("tiny")
    config.data.train, config.data.test, config.data.tokenizer = "train.jsonl", "test.jsonl", "characters.model"
    config.warm_start.incorrect_share = 0.0
    dataset = load_dataset(load(config), tmp_path / "run")
    assert {name: table.dropped for name, table in dataset.tables.items()} == {"train": 0, "validation": 0, "test": 0}
    texts = dataset.tokenizer.decode_batch([[i for i in row if i] for row in dataset.examples.response_QT[:3].tolist()])
    assert all(re.fullmatch(r"\\boxed\{\d+\}", text) for text in texts)
    assert jnp.all(dataset.tables["train"].length_Q > 3)


@pytest.mark.slow
def test_the_commands_of_your_own(own):
    """Each as it stands on the page, with sizes that make it short; a few minutes."""
    small = "--config.steps=2 --config.warm_start.steps=2 --config.prompts_per_step=8 --config.answers_per_prompt=4"
    few = "--config.evaluation.max_problems=8 --config.evaluation.every_steps=0"
    for script in snippets(FOLDER / "your_own.md", "bash"):
        script = re.sub(r"(python -m nft_jax\.train)", rf"\1 {small} {few}", script)
        script = script.replace("python ", f"{sys.executable} ").replace("PYTHONPATH=.", f"PYTHONPATH=.:{ROOT}")
        subprocess.run(["bash", "-ec", f"export PYTHONPATH={ROOT}\n{script}"], cwd=own, check=True)
