"""Where an answer lies, beside whom and on how many devices, changes neither its loss nor its gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from helpers.packed_answers import CASE_IDS, CASES, draw_answers, pack, totals_of, units
from nft_jax.losses import LOSSES, resolve, total_loss
from nft_jax.losses.advantage import centered, normalized, overlong_normalized

every_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)


def by_answer(gradient_and_loss, rows):
    """`{log-probs of the answer: (gradient of the objective, loss of its tokens)}`."""
    packed = pack(rows, length=50)
    answers = sum(rows, [])
    arrays = [np.asarray(x) for x in gradient_and_loss(packed.logp_BT, packed.batch, totals_of(answers))]
    return {
        tuple(answer.logp): tuple(x_BT[row, place] for x_BT in arrays)
        for answer, (row, place) in zip(answers, packed.places, strict=True)
    }


@every_loss
def test_losses_do_not_depend_on_packing(name, options):
    loss = resolve(name, options)
    alone = units(draw_answers(seed=6), loss.unit)
    order = np.random.default_rng(7).permutation(len(alone))
    together = [sum((alone[i] for i in order[j : j + 3]), []) for j in range(0, len(order), 3)]
    together += [[]] * (len(alone) - len(together))  # empty rows, for one compilation

    @jax.jit
    def gradient_and_loss(logp_BT, batch, totals):
        def objective(logp_BT):
            loss_BT = loss.function(logp_BT, batch)
            return total_loss(loss_BT, batch, totals, loss.normalizer, 8), loss_BT

        return jax.grad(objective, has_aux=True)(logp_BT)

    first, second = by_answer(gradient_and_loss, alone), by_answer(gradient_and_loss, together)
    assert first.keys() == second.keys()
    for key, values in first.items():
        for one, other in zip(values, second[key], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_losses_of_an_answer_do_not_depend_on_its_neighbors():
    """The one loss whose answers are one term: the gradient of an answer's loss stops at its borders."""
    packed = pack([draw_answers(seed=6)[:4]], length=40)
    _, place = packed.places[1]
    loss = resolve("nft", {"ratio": "answer"})
    gradient_T = np.asarray(
        jax.jit(jax.grad(lambda x: loss.function(x, packed.batch)[0, place].sum()))(packed.logp_BT)
    )[0]
    assert np.all(gradient_T[place] != 0)
    assert np.count_nonzero(gradient_T) == place.stop - place.start


@pytest.mark.parametrize("advantage", [centered, normalized, overlong_normalized])
def test_losses_do_not_depend_on_the_order_of_answers_in_a_group(advantage):
    random = np.random.default_rng(8)
    correct_QK = (random.random((3, 8)) < 0.4).astype(np.float32)
    length_QK = random.integers(1, 20, (3, 8)).astype(np.int32)
    options = {"overlong_buffer": 8} if advantage is overlong_normalized else {}
    order = random.permutation(8)
    straight = advantage(jnp.asarray(correct_QK), jnp.asarray(length_QK), 20, **options)
    shuffled = advantage(jnp.asarray(correct_QK[:, order]), jnp.asarray(length_QK[:, order]), 20, **options)
    np.testing.assert_allclose(straight[:, order], shuffled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in LOSSES), ("nft", {"ratio": "answer"})])
def test_losses_on_eight_devices_agree_with_one_and_exchange_no_rows(name, options):
    loss = resolve(name, options)
    alone = units(draw_answers(seed=9, groups=8), LOSSES[name].traits.unit)
    rows = [sum(alone[i::16], []) for i in range(16)]
    packed = pack(rows, length=40)
    totals = totals_of(sum(rows, []))

    def objective(logp, batch):
        return total_loss(loss.function(logp, batch), batch, totals, loss.normalizer, 8)

    value_and_gradient = jax.value_and_grad(objective)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("data", None))
    inputs = jax.device_put((packed.logp_BT, packed.batch), by_rows)
    compiled = jax.jit(value_and_gradient, out_shardings=(None, by_rows)).lower(*inputs).compile()
    value, gradient_BT = compiled(*inputs)
    assert len(gradient_BT.sharding.device_set) == 8
    one_value, one_gradient_BT = jax.jit(value_and_gradient)(packed.logp_BT, packed.batch)
    np.testing.assert_allclose(value, one_value, rtol=1e-5)
    np.testing.assert_allclose(gradient_BT, one_gradient_BT, rtol=1e-5, atol=1e-9)
    collective = r"= (\S+) (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    assert set(re.findall(collective, compiled.as_text())) == {"f32[]"}  # the sum of the objective and nothing else
