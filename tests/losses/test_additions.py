"""Corrections, truncation masking and the entropy bonus, on any loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import draw_answers, pack
from nft_jax.losses import CORRECTIONS, NO_CORRECTION, Additions, count_rows, resolve

LOSSES = ("nft", "grpo", "rft")


def batch_with(gap: float = 0.0, truncated: tuple[int, ...] = ()):
    """Rows with π_old exp(gap · noise) times the sampler's probability; the answers of these numbers are truncated."""
    answers = draw_answers(seed=30)
    packed = pack([answers[i : i + 3] for i in range(0, len(answers), 3)], length=30)
    batch = packed.batch
    noise_BT = np.random.default_rng(31).normal(size=batch.answer_BT.shape).astype(np.float32)
    truncated_BT = np.zeros(batch.answer_BT.shape, np.float32)
    for number in truncated:
        row, place = packed.places[number]
        truncated_BT[row, place] = 1
    batch = batch._replace(
        sampler_logp_BT=batch.old_logp_BT - gap * noise_BT,
        entropy_BT=jnp.where(batch.answer_BT >= 0, 1.5, 0.0),
        truncated_BT=jnp.asarray(truncated_BT),
    )
    gaps = [np.exp(gap * noise_BT[row, place].astype(np.float64)) for row, place in packed.places]
    return packed.logp_BT, batch, packed.places, gaps


def run(name, additions, logp_BT, batch):
    loss = resolve(name, {}, additions)
    if loss.prepare is not None:
        batch = loss.prepare(None, batch)
    loss_BT, metrics = loss.evaluate(logp_BT, batch)
    return np.asarray(loss_BT), metrics, batch


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_corrections_are_the_identity_where_the_sampler_is_the_trainer(name, correction):
    logp_BT, batch, _, _ = batch_with(gap=0.0)
    plain_BT, _, _ = run(name, Additions(), logp_BT, batch)
    loss_BT, metrics, left = run(name, Additions(correction=correction), logp_BT, batch)
    np.testing.assert_array_equal(loss_BT, plain_BT)
    np.testing.assert_array_equal(left.answer_BT, batch.answer_BT)
    assert set(np.unique(metrics["correction"])) == {0, 1}


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_corrections_weigh_each_answer_by_its_gaps(correction):
    low, high = 0.6, 1.7
    logp_BT, batch, places, gaps = batch_with(gap=0.5)
    plain_BT, _, _ = run("grpo", Additions(), logp_BT, batch)
    bounds = {"correction_low": low, "correction_high": high}
    loss_BT, _, left = run("grpo", Additions(correction=correction, **bounds), logp_BT, batch)
    changed = 0
    for (row, place), gap in zip(places, gaps, strict=True):
        product = np.prod(gap)
        expected = {
            "tis": np.minimum(gap, high),
            "tis_answer": np.full(gap.shape, min(product, high)),
            "icepop": np.where((gap >= low) & (gap <= high), gap, 0),
            "mis": np.full(gap.shape, product if low <= product <= high else 0),
        }[correction]
        np.testing.assert_allclose(loss_BT[row, place], expected * plain_BT[row, place], rtol=1e-5, atol=1e-7)
        changed += np.any((expected == 0) | (expected == high))
        leaves = correction == "mis" and not low <= product <= high
        assert np.all((np.asarray(left.answer_BT)[row, place] < 0) == leaves)
    assert 0 < changed < len(places)


def test_corrections_have_no_gradient_of_their_own():
    logp_BT, batch, _, _ = batch_with(gap=0.3)
    loss = resolve("rft", {}, Additions(correction="tis"))
    gradient_BT = jax.grad(lambda old_BT: loss.function(logp_BT, batch._replace(old_logp_BT=old_BT)).sum())
    assert not np.any(gradient_BT(batch.old_logp_BT))


def test_mask_truncated_leaves_answers_out_before_they_are_counted():
    logp_BT, batch, places, _ = batch_with(truncated=(0, 4))
    loss_BT, _, left = run("nft", Additions(mask_truncated=True), logp_BT, batch)
    plain_BT, _, _ = run("nft", Additions(), logp_BT, batch)
    for number, (row, place) in enumerate(places):
        expected = 0 * plain_BT[row, place] if number in (0, 4) else plain_BT[row, place]
        np.testing.assert_array_equal(loss_BT[row, place], expected)
    assert count_rows(left).answers == len(places) - 2


def test_entropy_bonus_is_subtracted_inside_answers():
    logp_BT, batch, _, _ = batch_with()
    loss_BT, _, _ = run("grpo", Additions(entropy_weight=0.1), logp_BT, batch)
    plain_BT, _, _ = run("grpo", Additions(), logp_BT, batch)
    np.testing.assert_allclose(loss_BT, plain_BT - 0.1 * np.asarray(batch.entropy_BT), rtol=1e-6, atol=1e-7)


def test_extend_without_additions_returns_the_loss_itself():
    assert resolve("grpo", {}, Additions(correction=NO_CORRECTION, correction_high=9.0)).measured is None
    assert resolve("grpo", {}, Additions()).reads == ()


def test_extend_refuses_what_can_not_be_added():
    with pytest.raises(ValueError, match="unknown correction 'tsi'.*did you mean 'tis'"):
        resolve("nft", {}, Additions(correction="tsi"))
    with pytest.raises(ValueError, match="correction_low=2.0 must be below correction_high=2.0"):
        resolve("nft", {}, Additions(correction="mis", correction_low=2.0))
    with pytest.raises(ValueError, match="entropy_weight=-1.0 must be from 0"):
        resolve("nft", {}, Additions(entropy_weight=-1.0))
    for additions in (Additions(correction="tis"), Additions(mask_truncated=True)):
        with pytest.raises(ValueError, match="'dpo' learns from pairs"):
            resolve("dpo", {}, additions)
    assert resolve("dpo", {}, Additions(entropy_weight=0.1)).reads == ("entropy",)
