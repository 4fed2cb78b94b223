"""The warm start: plain maximum likelihood of the responses, on any mesh."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import assert_same, build_on_mesh, on_host, small
from nft_jax import sft
from nft_jax.data.order import prompt_order
from nft_jax.models import transformer
from nft_jax.randomness import stream
from nft_jax.run.checkpoint import load_weights
from nft_jax.run.workdir import Workdir
from nft_jax.types import Tokens

BATCH = 16
UPDATES = 30


def warm(steps, **changes):
    return small(
        warm_start__steps=steps,
        warm_start__examples_per_update=BATCH,
        warm_start__arithmetic_examples=512,
        warm_start__incorrect_share=0.5,
        warm_start__optimizer__learning_rate=1e-2,
        warm_start__optimizer__warmup_updates=0,
        # Several examples to a row, several rows to a micro-batch, and a last one that is not full.
        packing__row_tokens=50,
        packing__rows_per_micro_batch=3,
        **changes,
    )


def run(config, folder):
    """Returns (experiment, weights, losses) of a warm start in a folder that holds the lines of an older one."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": -1.0}) + "\n")
    experiment = build_on_mesh(config, folder)
    weights = sft.warm_start(experiment, Workdir(folder))
    lines = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines] == list(range(1, config.warm_start.steps + 1))
    return experiment, weights, np.array([row["loss"] for row in lines])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sft")


@pytest.fixture(scope="module")
def trained(folder):
    return run(warm(UPDATES), folder / "one")


def test_warm_start_lowers_the_loss(trained):
    _, _, losses = trained
    assert np.isfinite(losses).all()
    assert losses[-5:].mean() < 0.6 * losses[0]


def test_warm_start_has_the_same_losses_on_eight_devices(trained, folder):
    _, _, losses = run(warm(3, mesh__data=4, mesh__tensor=2), folder / "eight")
    np.testing.assert_allclose(losses, trained[2][:3], rtol=1e-5)


def test_supervised_step_objective_is_the_mean_negative_log_likelihood(trained):
    experiment, _, losses = trained
    table = experiment.dataset.examples
    chosen = prompt_order(stream(experiment.config.seed, "warm_start"), len(table.token_QP), jnp.int32(0), BATCH)
    width = table.token_QP.shape[1] + table.response_QT.shape[1]
    token, segment = np.zeros((BATCH, width), np.int32), np.full((BATCH, width), -1, np.int32)
    is_response = np.zeros((BATCH, width), bool)
    for row, n in enumerate(np.asarray(chosen)):
        prompt, response = int(table.prompt_length_Q[n]), int(table.response_length_Q[n])
        token[row, : prompt + response] = [*table.token_QP[n, :prompt], *table.response_QT[n, :response]]
        segment[row, : prompt + response] = 0
        is_response[row, prompt : prompt + response] = True
        assert token[row, prompt + response - 1] == experiment.tokenizer.eos_ids[0]

    @jax.jit
    def logits(weights):
        model = transformer.bind(experiment.model.graph, weights)
        position = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), token.shape)
        hidden = model(Tokens(jnp.asarray(token), jnp.asarray(segment), position))
        return model.logits(hidden.reshape(-1, hidden.shape[-1]))

    with jax.default_matmul_precision("highest"):
        weights = experiment.model.random_weights(experiment.config.seed)
        logits_BTV = np.asarray(logits(weights), np.float64).reshape(BATCH, width, -1)
    logp_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(axis=-1, keepdims=True))
    # The logits at a token predict the next one.
    logp_BT = np.take_along_axis(logp_BTV[:, :-1], token[:, 1:, None], axis=-1)[..., 0]
    assert losses[0] == pytest.approx(-logp_BT[is_response[:, 1:]].mean(), rel=1e-5)


def test_warm_start_saves_weights_for_load_weights(trained, folder):
    experiment, weights, _ = trained
    assert_same(on_host(weights), on_host(load_weights(folder / "one", experiment.model.abstract_weights())))
    with pytest.raises(
        FileNotFoundError, match="config.base=.*elsewhere: neither a folder 'weights' nor a checkpoint in it"
    ):
        load_weights(folder / "elsewhere", weights)


def test_main_refuses_a_warm_start_without_updates(tmp_path):
    with pytest.raises(ValueError, match="config.warm_start.steps=0: nothing to do"):
        sft.main(small(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
