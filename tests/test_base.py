"""Runs with adapters and a sampler in int8: what they save, how they resume, which frozen weights they accept."""

import contextlib
import dataclasses
import shutil

import jax
import numpy as np
import pytest

from helpers.experiments import assert_same, grader, on_host, small, write_graders
from helpers.runs import run, untimed
from helpers.small_parts import lively_weights
from nft_jax import train
from nft_jax.base import Source, add_frozen, load_base, read_fingerprint
from nft_jax.evaluate import evaluate
from nft_jax.models.lora import merge_adapters, split_weights
from nft_jax.run.weights import save_weights

RUN = {
    "steps": 4,
    "lora__rank": 2,
    "rollout__weights": "int8",
    "loss__kl_weight": 0.1,
    "warm_start__steps": 3,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 64,
    "evaluation__max_problems": 4,
    "evaluation__problems_per_batch": 4,
    "evaluation__answers_per_problem": 1,
    "record__checkpoint_every_steps": 2,
    "record__keep_checkpoints": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def config(folder):
    return small(verify__grader=grader("coin"), **RUN)


@pytest.fixture(scope="module")
def compiled(config, folder):
    """The experiment of all runs here, whose programs are compiled once."""

    def once(make):
        made = []
        return lambda *arguments: made[0] if made else made.append(make(*arguments)) or made[0]

    with train.open_experiment(config, folder / "tokenizer", jax.devices()[:1]) as experiment:
        yield (
            experiment,
            {
                "open_experiment": lambda *_: contextlib.nullcontext(experiment),
                "make_evaluator": once(train.make_evaluator),
                "compile_step": once(train.compile_step),
            },
        )


@pytest.fixture(scope="module")
def whole(config, compiled, folder):
    return run(config, folder / "whole", folder / "whole once", **compiled[1])


@pytest.fixture(scope="module")
def other(folder, config, compiled):
    """A workdir with other weights of the same shape."""
    model = compiled[0].model
    weights = jax.tree.map(
        lambda x, to: jax.device_put(x, to.sharding), lively_weights(model.config), model.abstract_base()
    )
    save_weights(folder / "other", weights)
    return folder / "other"


def test_checkpoint_holds_adapters_and_no_frozen_weights(whole, compiled):
    saved, trained = whole.checkpoint(4), compiled[0].model.abstract_trained()
    assert jax.tree.map(np.shape, saved["weights"]) == jax.tree.map(lambda x: x.shape, trained)
    assert set(saved["rest"]) == {"optimizer_state", "step", "cursor", "reference"}
    assert any(np.any(adapter["b"]) for adapter in saved["weights"]["blocks"].values())
    # The warm start trained adapters too, and the KL term measures from its end.
    assert all(np.any(adapter["b"]) for adapter in saved["rest"]["reference"]["blocks"].values())
    assert [row["kl"] for row in whole.rows("metrics.jsonl")][0] == 0
    assert "adapters  rank 2, alpha 16, on query, key, value, output, gate, up, down" in whole.printed


def test_run_reports_the_gap_of_a_sampler_in_int8(whole):
    assert "sampler   the layers' matrices in int8: 0.0 MiB of weights in all" in whole.printed
    assert all(2e-6 < row["sampler_gap_mean"] < 0.1 for row in whole.rows("metrics.jsonl"))


def test_run_with_adapters_resumes_bit_for_bit(whole, config, compiled, folder):
    shutil.copytree(whole.path, folder / "cut")
    shutil.rmtree(folder / "cut" / "checkpoints" / "4")
    resumed = run(config, folder / "cut", folder / "cut once", **compiled[1])
    assert "resumed from step 2" in resumed.printed
    assert_same(resumed.checkpoint(4), whole.checkpoint(4))
    assert untimed(resumed.rows("metrics.jsonl")) == untimed(whole.rows("metrics.jsonl"))
    assert resumed.json("result.json") == whole.json("result.json")


def test_run_with_adapters_refuses_other_frozen_weights(whole, config, compiled, other, folder):
    shutil.copytree(whole.path, folder / "refused")
    shutil.rmtree(folder / "refused" / "checkpoints" / "4")
    changed = dataclasses.replace(compiled[0], config=dataclasses.replace(compiled[0].config, base=str(other)))
    replaced = compiled[1] | {"open_experiment": lambda *_: contextlib.nullcontext(changed)}
    with pytest.raises(
        ValueError, match="the frozen weights: the run has those of digest [0-9a-f]{16}, given [0-9a-f]{16}"
    ):
        run(config, folder / "refused", None, **replaced)


def test_add_frozen_refuses_other_frozen_weights(whole, compiled, other):
    model, trained = compiled[0].model, whole.checkpoint(4)["weights"]
    fingerprint = read_fingerprint(whole.path)
    with pytest.raises(ValueError, match=f"here holds adapters of frozen weights with digest .*, but {other} has"):
        add_frozen(trained, Source(str(other), "", 0), model, fingerprint, "here")
    all_weights = add_frozen(trained, Source("", "", 0), model, fingerprint, "here")
    assert_same(on_host(split_weights(all_weights)[1]), on_host(model.random_base(0)))


@pytest.mark.parametrize("place", ["", "warm_start"])
def test_load_base_merges_the_adapters_of_a_run(whole, config, compiled, place):
    model = compiled[0].model
    state = whole.checkpoint(4)
    trained = state["rest"]["reference"] if place else state["weights"]
    merged = merge_adapters(
        add_frozen(trained, Source("", "", 0), model, read_fingerprint(whole.path), ""), 8.0, "float32"
    )
    found = load_base(Source(str(whole.path / place), "", 1), model)
    assert_same(on_host(found), on_host(merged))
    # A new run starts there with adapters that change nothing.
    experiment = dataclasses.replace(compiled[0], config=dataclasses.replace(config, base=str(whole.path / place)))
    trained, frozen = split_weights(experiment.starting_weights())
    assert_same(on_host(frozen), on_host(merged))
    assert not any(np.any(adapter["b"]) for adapter in trained["blocks"].values())


def test_evaluate_scores_adapters_as_the_run_did(whole, config):
    scores, result = evaluate(config, whole.path, 4), whole.json("result.json")
    assert scores["test"].greedy == result["test"]["final"]["greedy"]
    assert scores["test"].entropy == pytest.approx(result["test"]["final"]["entropy"], rel=1e-5)
    assert evaluate(config, whole.path, 0)["test"].greedy == result["test"]["base"]["greedy"]
