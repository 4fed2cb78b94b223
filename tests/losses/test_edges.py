"""Every loss keeps a finite value and gradient at every edge, and is silent outside answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import CASE_IDS, CASES
from nft_jax.losses import resolve, total_loss
from nft_jax.losses.kl import k3
from nft_jax.types import LossBatch, Totals

every_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)


def edges():
    """A row for each rate × log-ratio × reward; in it two tokens of answer 1, two of answer 3, none of 0 and 2."""
    rows = []
    for rate in (0.0, 1e-7, 0.25, 0.5, 1 - 2**-23, 1.0):
        meets = -np.log(rate) if rate else 0.0  # R = 1 / rate: the negative policy is 0
        for log_ratio in (0.0, meets, np.nextafter(meets, 99), meets + 1, 2 * meets + 3, 10.0, 11.0, 1e4, -1e4):
            rows += [(rate, log_ratio, reward) for reward in (0.0, 1.0)]
    rate, log_ratio, reward = (np.array(column, np.float32)[:, None] for column in zip(*rows, strict=True))
    id_BT = np.broadcast_to(np.array([-1, 1, 1, 3, 3, -1], np.int32), (len(rows), 6))
    inside_BT = id_BT >= 0

    def spread(value, outside=0.0):
        return jnp.asarray(np.where(inside_BT, value, np.float32(outside)))

    # Log-probs are never positive: what is gained was improbable, what is lost was certain.
    logp_BT = spread(np.minimum(log_ratio, 0), outside=-np.inf)
    old_logp_BT = spread(np.minimum(-log_ratio, 0), outside=-np.inf)
    pair_BT = np.where(inside_BT, np.int32(1), np.int32(-1))
    columns = (old_logp_BT, id_BT, spread(reward), spread(rate), spread(2 * reward - 1), pair_BT)
    return logp_BT, LossBatch(*map(jnp.asarray, columns), choice_BT=spread(reward))


def value_and_gradient(loss, logp_BT, batch):
    def objective(logp):
        loss_BT = loss.function(logp, batch)
        return loss_BT.sum(), loss_BT

    gradient_BT, loss_BT = jax.jit(jax.grad(objective, has_aux=True))(logp_BT)
    return np.asarray(loss_BT), np.asarray(gradient_BT)


@every_loss
def test_losses_are_finite_at_every_edge_and_zero_outside_answers(name, options):
    logp_BT, batch = edges()
    loss_BT, gradient_BT = value_and_gradient(resolve(name, options), logp_BT, batch)
    assert np.isfinite(loss_BT).all()
    assert np.isfinite(gradient_BT).all()
    outside = np.asarray(batch.answer_BT) < 0
    assert not loss_BT[outside].any()
    assert not gradient_BT[outside].any()
    assert gradient_BT[~outside].any()


@every_loss
def test_losses_make_no_nan_that_is_masked_later(name, options):
    logp_BT, batch = edges()
    with jax.debug_nans(True):
        resolve(name, options).function(logp_BT, batch)


@every_loss
def test_losses_are_zero_on_rows_without_answers(name, options):
    logp_BT, batch = edges()
    empty = jnp.full(logp_BT.shape, -1, jnp.int32)
    batch = batch._replace(answer_BT=empty, pair_BT=empty)
    loss_BT, gradient_BT = value_and_gradient(resolve(name, options), jnp.full_like(logp_BT, -jnp.inf), batch)
    assert not loss_BT.any()
    assert not gradient_BT.any()


@every_loss
def test_losses_accept_a_batch_without_rows(name, options):
    logp_BT, batch = jax.tree.map(lambda x: x[:0], edges())
    assert resolve(name, options).function(logp_BT, batch).shape == logp_BT.shape


@every_loss
def test_total_loss_of_an_empty_minibatch_is_zero(name, options):
    logp_BT, batch = edges()
    empty = jnp.full(logp_BT.shape, -1, jnp.int32)
    batch = batch._replace(answer_BT=empty, pair_BT=empty)
    loss = resolve(name, options)
    totals = Totals(*jnp.zeros(3, jnp.float32))
    assert total_loss(loss.function(logp_BT, batch), batch, totals, loss.normalizer, 6) == 0


@pytest.mark.parametrize("omega", ["one", "one_minus_rate", "sqrt_odds"])
@pytest.mark.parametrize(("rate", "reward"), [(0.0, 0.0), (1.0, 0.0)])
def test_nft_has_no_negative_gradient_for_groups_of_one_kind(rate, reward, omega):
    """Unclamped, π⁻ is π_old at rate 0 whatever the policy is, and undefined at rate 1."""
    logp_BT, batch = edges()
    batch = batch._replace(rate_BT=jnp.full_like(batch.rate_BT, rate), reward_BT=jnp.full_like(batch.rate_BT, reward))
    loss_BT, gradient_BT = value_and_gradient(resolve("nft", {"omega": omega, "clamp_rate": False}), logp_BT, batch)
    assert not loss_BT.any()
    assert not gradient_BT.any()


def test_k3_is_zero_at_the_reference_and_else_positive_and_bounded():
    answer_BT = jnp.array([[0, 0, 0, 0, -1]], jnp.int32)
    reference_BT = jnp.array([[-1.0, -1.0, -1.0, 0.0, -jnp.inf]], jnp.float32)
    logp_BT = jnp.array([[-1.0, -1.5, -0.5, -1e4, -jnp.inf]], jnp.float32)
    difference = np.array([0.0, 0.5, -0.5, 10.0])
    expected = np.append(np.exp(difference) - difference - 1, 0.0)[None]
    np.testing.assert_allclose(k3(logp_BT, reference_BT, answer_BT), expected, rtol=1e-5)
    gradient_BT = jax.grad(lambda logp: k3(logp, reference_BT, answer_BT).sum())(logp_BT)
    np.testing.assert_allclose(gradient_BT, [[0, 1 - np.exp(0.5), 1 - np.exp(-0.5), 0, 0]], rtol=1e-5)
