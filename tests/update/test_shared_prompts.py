"""Prompts read once for all their answers: the same log-probs and gradients as one prompt before each answer."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    MIXED,
    MODEL,
    assert_close,
    eight_devices,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from nft_jax.config import LossConfig, PackingConfig
from nft_jax.models import attention_backends
from nft_jax.models.attention_backends import XLA, select_attention
from nft_jax.parallel.mesh import make_mesh
from nft_jax.precision import in_float64, to_float64
from nft_jax.update.packing import replace_values

Q, K = 8, 4
WEIGHTS = lively_weights(MODEL)
MODELS = {"dpo": MODEL, "nft": MIXED}
PROMPTS = random_prompts(0, Q)
# Prompts are read four at a time; rows hold several answers, and aren't all full.
ROWS = {"row_tokens": 17, "rows_per_micro_batch": 2, "logp_chunk_tokens": 8}
IN_ROWS = PackingConfig(share_prompts="no")  # one answer a row, behind its prompt


def groups(seed=1):
    """Log-probs of the sampler are all different, so that they name a token wherever it is packed."""
    drawn = random_groups(seed, Q, K)
    names_QKT = -1 - np.arange(drawn.token_QKT.size, dtype=np.float32).reshape(drawn.token_QKT.shape) / 1024
    return drawn._replace(logp_QKT=names_QKT)


def packed_program(config, mesh, function, model=None, attention=XLA):
    """`(weights, groups, count, prompts) -> function(step, weights, packed, totals)` of the only update."""
    step = training_step(config, mesh, model, attention)

    @jax.jit
    def program(weights, groups, count, prompts):
        packed, totals = step.pack(groups, count, jax.tree.map(jnp.asarray, prompts), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        return function(step, weights, packed, totals)

    return program


def gradient(step, weights, packed, totals):
    reference = jax.tree.map(lambda x: 0.9 * x, weights) if step.config.loss.kl_weight else None
    found, statistics = step.updater.gradient(weights, packed, totals, reference, True)
    return found, statistics.objective, packed.prompts_used


@pytest.mark.parametrize(("name", "mesh"), [("nft", eight_devices), ("dpo", one_device)])
def test_shared_prompts_give_the_gradient_of_one_prompt_an_answer_to_float64_rounding(name, mesh):
    """With old log-probs of the very forward pass, and with a reference that has keys of its own."""
    loss = LossConfig(name=name, kl_weight=0.3 if name == "nft" else 0.0)
    double, weights = dataclasses.replace(MODELS[name], dtype="float64"), lively_weights(MODELS[name])
    with in_float64():
        alone, shared = (
            packed_program(small_config(loss=loss, old_logp="current", packing=packing), mesh, gradient, double)
            for packing, mesh in ((IN_ROWS, one_device()), (PackingConfig(**ROWS), mesh()))
        )
        for count in (Q, 5, 1):
            inputs = to_float64(weights), to_float64(groups()), np.int32(count), PROMPTS
            expected, found = (jax.device_get(program(*inputs)) for program in (alone, shared))
            assert all(x.dtype == np.float64 for x in jax.tree.leaves(found[0]))
            assert_close(found[0], expected[0], 1e-12)
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-12)
            # Each border between shards parts at most one group.
            assert expected[2] is None
            assert count <= sum(found[2]) <= count + len(found[2]) - 1


@pytest.mark.parametrize(
    ("name", "packing"), [("splash", ROWS), ("cudnn_packed", ROWS), ("cudnn_packed", ROWS | {"share_prompts": "no"})]
)
def test_kernels_give_the_gradient_of_xla(monkeypatch, name, packing):
    """Over data shards and heads, one prompt in five without a column that its answers' rows see."""
    # In 16 bits, which cuDNN needs, a difference of 1e-5 would not show.
    monkeypatch.setitem(attention_backends.DTYPES, name, ("float32",))
    mesh, config = eight_devices(), small_config(packing=PackingConfig(**packing))
    kernel = select_attention(dataclasses.replace(MODEL, attention=name), mesh, interpret=True)
    inputs = WEIGHTS, groups(), np.int32(Q), PROMPTS
    assert (PROMPTS.length_Q == 1).any()
    found, expected = (
        jax.device_get(packed_program(config, mesh, gradient, attention=attention)(*inputs))
        for attention in (kernel, XLA)
    )
    assert_close(found[0], expected[0], 1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)


@pytest.fixture(scope="module")
def log_probs():
    """`(groups, prompts) -> [Q, K, T]` log-probs by the trainer; 0 beyond the ends."""

    def recomputed(step, weights, packed, totals):
        del totals
        return replace_values(packed, old_logp_BT=step.updater.logp(weights, packed)).rows

    program = packed_program(small_config(packing=PackingConfig(**ROWS)), one_device(), recomputed)

    def run(groups, prompts):
        rows = jax.device_get(program(WEIGHTS, groups, np.int32(Q), prompts))
        inside_BT = rows.batch.answer_BT >= 0
        number = np.round((-1 - rows.sampler_logp_BT[inside_BT]) * 1024).astype(int)
        assert len(set(number)) == len(number) == groups.length_QK.sum()
        logp_QKT = np.zeros(groups.token_QKT.shape, np.float32)
        logp_QKT.reshape(-1)[number] = rows.batch.old_logp_BT[inside_BT]
        return logp_QKT

    return run


def test_shared_prompts_are_seen_by_their_group_alone(log_probs):
    drawn = groups()
    before = log_probs(drawn, PROMPTS)
    inside_QKT = np.arange(before.shape[2]) < drawn.length_QK[..., None]
    for q, k in np.ndindex(Q, K):
        token_QKT = drawn.token_QKT.copy()
        token_QKT[q, k, 0] = 3 + (token_QKT[q, k, 0] - 2) % 18
        changed = log_probs(drawn._replace(token_QKT=token_QKT), PROMPTS) != before
        np.testing.assert_array_equal(np.argwhere(changed.any(axis=2)), [[q, k]])
        np.testing.assert_array_equal(changed[q, k], inside_QKT[q, k])

    q = int(np.argmax(PROMPTS.length_Q > 2))
    for place in (0, PROMPTS.length_Q[q] - 1):  # one that is shared, and the last, which begins each answer's row
        token_QP = PROMPTS.token_QP.copy()
        token_QP[q, place] = 3 + (token_QP[q, place] - 2) % 18
        changed = log_probs(drawn, PROMPTS._replace(token_QP=token_QP)) != before
        assert not np.delete(changed, q, axis=0).any()
        np.testing.assert_array_equal(changed[q], inside_QKT[q])


def test_shared_prompts_exchange_no_keys_between_data_shards():
    """Eight data shards: what moves between them are weights, gradients and scalars."""

    def update(step, weights, packed, totals):
        packed = replace_values(packed, old_logp_BT=step.updater.logp(weights, packed))
        return step.updater.gradient(weights, packed, totals)[0]

    # Nothing but keys and values ends in 13 columns of 3 heads of 16.
    model = dataclasses.replace(MODEL, heads=6, kv_heads=3, head_size=16, width=48, mlp_width=64)
    config = small_config(model=model, packing=PackingConfig(**ROWS))
    prompts = random_prompts(0, Q, 13)
    program = packed_program(config, make_mesh(8, 1, jax.devices()[:8]), update, model)
    text = program.lower(lively_weights(model), groups(), np.int32(Q), prompts).compile().as_text()
    moves = r"= (.*?) (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    moved = [shape for line in re.findall(moves, text) for shape in re.findall(r"\w+\[[\d,]*\]", line)]
    assert moved
    keys = re.compile(r"\[[\d,]*\b13,3,16\]")
    assert keys.search(text)
    assert not any(keys.search(shape) for shape in moved), moved
