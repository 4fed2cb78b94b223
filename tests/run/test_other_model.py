"""A workdir never mixes two models: neither when it resumes, nor in its evaluation or export."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from helpers.experiments import compilations, grader, small, write_graders
from helpers.model_folders import random_tensors, stored_tensors, write_model, write_tokenizer
from helpers.runs import run
from nft_jax import train
from nft_jax.config import Config, replace_value
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.evaluate import evaluate
from nft_jax.export import export

SIZES = {
    "steps": 1,
    "data__train": "arithmetic",
    "prompts_per_step": 4,
    "answers_per_prompt": 2,
    "selection__max_rounds": 1,
    "rollout__max_answer_tokens": 4,
    "evaluation__max_problems": 2,
    "evaluation__problems_per_batch": 2,
    "evaluation__answers_per_problem": 1,
    "model__width": 256,
    "model__heads": 8,
    "model__head_size": 32,
    "model__mlp_width": 1024,
    "model__layers": 4,
    "model__tied_embedding": True,
    "model__dtype": "auto",
    "model__precision": "auto",
}


def write_folder(path: Path, seed: int = 0, eos: str = "[1]") -> Path:
    write_tokenizer(write_model(path, random_tensors(seed=seed)))
    (path / "generation_config.json").write_text(f'{{"eos_token_id": {eos}}}')
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("other_model"))


@pytest.fixture(scope="module")
def config(folder):
    source = write_folder(folder / "source")
    return small(model__path=str(source), verify__grader=grader("coin"), **SIZES)


@pytest.fixture(scope="module")
def whole(folder, config):
    """A run of one step."""
    return run(config, folder / "run", folder / "run once")


def of_source(config: Config, source: Path) -> Config:
    return replace_value(config, "model.path", str(source))


def test_fingerprint_has_the_number_format_as_resolved(whole):
    given, resolved = whole.json("config.json")["model"], whole.json("fingerprint.json")["config"]["model"]
    assert (given["dtype"], given["precision"]) == ("auto", "auto")
    assert (resolved["dtype"], resolved["precision"]) == ("float32", "highest")


OTHERS = {
    "another model": ({"seed": 1}, "the digest of the weights in config.model.path: the run has .*, given "),
    "other ends": ({"eos": "[1, 5]"}, r"the ids that end an answer: the run has \[1, 2\], given \[1, 5, 2\]"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_train_refuses_to_go_on_with(whole, config, tmp_path, what):
    changes, words = OTHERS[what]
    longer = dataclasses.replace(of_source(config, write_folder(tmp_path / "other", **changes)), steps=2)
    kept = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    with compilations() as seen, pytest.raises(ValueError, match=f"holds another run:\n  {words}"):
        train.main(longer, whole.path)
    assert seen == []
    assert kept == {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}


def test_train_goes_on_without_the_model_folder_and_remembers_it(whole, config, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    gone = dataclasses.replace(of_source(config, tmp_path / "gone"), steps=2)
    ran = run(gone, tmp_path / "run", tmp_path / "run twice")
    assert ran.steps == [1, 2]
    assert ran.json("fingerprint.json")["origin"] == whole.json("fingerprint.json")["origin"]
    other = of_source(gone, write_folder(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=OTHERS["another model"][1]):
        train.main(other, ran.path)


def test_evaluate_and_export_take_the_kept_settings(whole, config, tmp_path):
    """The model folder holds another model by now, with other ends of answers."""
    shutil.copytree(whole.path, tmp_path / "run")
    other = of_source(config, write_folder(tmp_path / "other", seed=1, eos="[1, 5]"))
    assert evaluate(other, tmp_path / "run", 1) == evaluate(config, whole.path, 1)
    with pytest.raises(ValueError, match=f"of another model:\n  {OTHERS['another model'][1]}"):
        evaluate(other, tmp_path / "run", 0)
    with pytest.raises(ValueError, match=f"of another model:\n  {OTHERS['other ends'][1]}"):
        evaluate(replace_value(other, "data.tokenizer", other.model.path), tmp_path / "run", 1)
    export(other, tmp_path / "run", tmp_path / "exported")
    assert load_tokenizer(tmp_path / "exported").eos_ids == (1, 2)
    assert json.loads((tmp_path / "exported" / "generation_config.json").read_text()) == {"eos_token_id": [1]}
    assert stored_tensors(tmp_path / "exported").keys() == stored_tensors(Path(config.model.path)).keys()


def test_evaluate_of_step_0_says_that_the_model_folder_is_gone(whole, config, tmp_path):
    gone = of_source(config, tmp_path / "gone")
    with compilations() as seen, pytest.raises(FileNotFoundError) as raised:
        evaluate(gone, whole.path, 0)
    assert seen == []
    assert "the weights before the first step are gone with the model that the run started from" in str(raised.value)
    assert "--config.model.path=FOLDER" in str(raised.value)
    assert "download" not in str(raised.value)
    moved = of_source(config, Path(shutil.copytree(config.model.path, tmp_path / "moved")))
    assert evaluate(moved, whole.path, 0).keys() == {"test"}
