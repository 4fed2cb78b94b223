"""Supervised updates and the loss of held-out examples, against a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import build_on_mesh, on_host, small
from nft_jax.data.order import prompt_order
from nft_jax.models import transformer
from nft_jax.randomness import stream
from nft_jax.supervised import SupervisedStep, held_out_loss, make_sequences
from nft_jax.types import Tokens
from nft_jax.update.optimizer import make_optimizer

BATCH = 16
HELD_OUT = 40


@pytest.fixture(scope="module", params=[(1, 1, 1), (2, 2, 1)], ids=["one device", "replicas"])
def trained(request, tmp_path_factory):
    """(experiment, the first update's loss, the held-out loss before it)."""
    replica, data, tensor = request.param
    config = small(
        warm_start__steps=1,
        warm_start__examples_per_update=BATCH,
        warm_start__arithmetic_examples=512,
        warm_start__incorrect_share=0.5,
        warm_start__validate_every_steps=1,
        warm_start__validation_examples=HELD_OUT,
        # Several examples to a row, several rows to a micro-batch, and a last one that is not full.
        packing__row_tokens=50,
        packing__rows_per_micro_batch=3,
        rollout__temperature=0.5,  # of the samples of later phases
        mesh__replica=replica,
        mesh__data=data,
        mesh__tensor=tensor,
    )
    experiment = build_on_mesh(config, tmp_path_factory.mktemp("supervised"))
    optimizer = make_optimizer(config.warm_start.optimizer, 1, experiment.model.axes)
    step, weights = SupervisedStep(experiment, optimizer), experiment.model.random_weights(config.seed)
    examples, held_out = (
        experiment.place(make_sequences(table))
        for table in (experiment.dataset.examples, experiment.dataset.held_out_examples)
    )
    measure = jax.jit(step.measure)
    before = held_out_loss(measure(weights, held_out, np.int32(start)) for start in range(0, HELD_OUT, BATCH))
    state = experiment.initial_state(optimizer, weights)
    _, record = jax.jit(step)(state, examples)
    return experiment, float(record.applied.statistics.objective), before


def examples_logp(experiment, table, chosen):
    """The log-probs of the response tokens of each chosen example, each in a row of its own."""
    width = table.token_QP.shape[1] + table.response_QT.shape[1]
    token, segment = np.zeros((len(chosen), width), np.int32), np.full((len(chosen), width), -1, np.int32)
    is_response = np.zeros((len(chosen), width), bool)
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
        weights = on_host(experiment.model.random_weights(experiment.config.seed))
        logits_BTV = np.asarray(logits(weights), np.float64).reshape(len(chosen), width, -1)
    logp_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(axis=-1, keepdims=True))
    # The logits at a token predict the next one.
    logp_BT = np.take_along_axis(logp_BTV[:, :-1], token[:, 1:, None], axis=-1)[..., 0]
    return [row[mask] for row, mask in zip(logp_BT, is_response[:, 1:], strict=True)]


def test_supervised_step_objective_is_the_mean_negative_log_likelihood(trained):
    experiment, loss, _ = trained
    table = experiment.dataset.examples
    chosen = prompt_order(stream(experiment.config.seed, "warm_start"), len(table.token_QP), jnp.arange(BATCH))
    assert loss == pytest.approx(-np.concatenate(examples_logp(experiment, table, chosen)).mean(), rel=1e-5)


def test_supervised_step_measure_is_the_mean_loss_of_all_held_out_examples(trained):
    experiment, _, measured = trained
    logp = examples_logp(experiment, experiment.dataset.held_out_examples, range(HELD_OUT))
    assert (measured.examples, measured.tokens) == (HELD_OUT, sum(map(len, logp)))
    assert measured.loss == pytest.approx(-np.concatenate(logp).mean(), rel=1e-5)
    # The bootstrap over examples.
    random = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        drawn = random.integers(HELD_OUT, size=HELD_OUT)
        means.append(-np.concatenate([logp[i] for i in drawn]).mean())
    assert measured.loss_error == pytest.approx(np.std(means), rel=0.15)
