"""Distillation on any loss: its values by hand, its gradient by enumeration, and what it does alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import draw_answers, pack
from nft_jax.losses import DISTILLATION_KLS, Additions, Distillation, resolve
from nft_jax.losses.corrections import log_gap, weigh_answer
from nft_jax.types import LossBatch


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("kl", DISTILLATION_KLS)
def test_distill_adds_the_estimate_to_each_token(kl, alone):
    answers = draw_answers(seed=40)
    packed = pack([answers[i : i + 3] for i in range(0, len(answers), 3)], length=30)
    noise_BT = np.random.default_rng(41).normal(size=packed.logp_BT.shape).astype(np.float32)
    batch = packed.batch._replace(teacher_logp_BT=packed.logp_BT + noise_BT)
    plain_BT = resolve("grpo", {}).function(packed.logp_BT, batch)
    loss = resolve("grpo", {}, distillation=Distillation(0.5, kl, alone))
    loss_BT, metrics = loss.evaluate(packed.logp_BT, batch)
    expected_BT = np.zeros_like(noise_BT) if alone else np.array(plain_BT)
    shown_BT = np.zeros_like(noise_BT)
    for row, place in packed.places:
        difference = noise_BT[row, place].astype(np.float64)
        k3 = np.exp(difference) - difference - 1
        expected_BT[row, place] += 0.5 * (difference**2 / 2 if kl == "k2" else k3)
        shown_BT[row, place] = k3
    np.testing.assert_allclose(loss_BT, expected_BT, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["teacher_kl"], shown_BT, rtol=1e-4, atol=1e-5)
    assert (loss.groups, loss.normalizer) == (("all", "token_mean") if alone else ("all", "sequence_mean"))


@pytest.mark.parametrize("kl", ["k2", "k3_straight"])
def test_mean_gradient_over_the_policys_tokens_is_that_of_the_reverse_divergence(kl):
    """By a sum over a vocabulary of 7, the policy's probabilities held fixed."""
    random = np.random.default_rng(42)
    logits_V, teacher_V = jnp.asarray(random.normal(size=7)), jax.nn.log_softmax(jnp.asarray(random.normal(size=7)))
    loss = resolve("grpo", {}, distillation=Distillation(kl=kl, alone=True))
    ones_1V, zeros_1V = jnp.ones((1, 7)), jnp.zeros((1, 7))
    ids_1V = jnp.arange(7, dtype=jnp.int32)[None]
    batch = LossBatch(zeros_1V, ids_1V, ones_1V, ones_1V, ones_1V, ids_1V, teacher_logp_BT=teacher_V[None])

    def mean_estimate(logits_V):
        logp_V = jax.nn.log_softmax(logits_V)
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp_V)) * loss.function(logp_V[None], batch)[0])

    def divergence(logits_V):
        logp_V = jax.nn.log_softmax(logits_V)
        return jnp.sum(jnp.exp(logp_V) * (logp_V - teacher_V))

    np.testing.assert_allclose(jax.grad(mean_estimate)(logits_V), jax.grad(divergence)(logits_V), atol=1e-6)


def test_what_is_added_to_a_loss_acts_on_a_distillation_alone():
    answers = draw_answers(seed=43)
    packed = pack([answers[i : i + 3] for i in range(0, len(answers), 3)], length=30)
    random, shape = np.random.default_rng(44), packed.logp_BT.shape
    teacher_BT, sampler_BT, entropy_BT = (random.normal(size=shape).astype(np.float32) for _ in range(3))
    fields = {"teacher_logp_BT": teacher_BT, "sampler_logp_BT": sampler_BT, "entropy_BT": entropy_BT}
    batch, terms = packed.batch._replace(**fields), Distillation(alone=True)
    plain_BT = resolve("kl_cov", {}, distillation=terms).function(packed.logp_BT, batch)
    loss = resolve("kl_cov", {}, Additions("mis", 0.0, 1e6, entropy_weight=0.1), terms)
    inside_BT = packed.batch.answer_BT >= 0
    weight_BT = weigh_answer(log_gap(batch), packed.batch.answer_BT, 0.0, 1e6)
    expected_BT = np.where(inside_BT, weight_BT * plain_BT - 0.1 * entropy_BT, 0)
    np.testing.assert_allclose(loss.function(packed.logp_BT, batch), expected_BT, rtol=1e-5, atol=1e-6)
    # Nothing is left of the loss itself.
    assert loss.reads == ("entropy", "sampler_logp", "teacher_logp") and not loss.forward


def test_distill_beside_nft_keeps_its_groups_and_alone_refuses_pairs():
    beside = resolve("nft", {}, distillation=Distillation())
    assert (beside.groups, beside.normalizer, beside.reads) == ("mixed", "constant", ("teacher_logp",))
    with pytest.raises(ValueError, match="loss 'dpo' learns from pairs, and distillation alone from all answers"):
        resolve("dpo", {}, distillation=Distillation(alone=True))
