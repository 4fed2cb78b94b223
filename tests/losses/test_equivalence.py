"""On-policy, NFT is GRPO or Dr. GRPO, in gradient: of the logits of a softmax policy, to float64 rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import draw_answers, pack, totals_of
from nft_jax.losses import resolve, total_loss
from nft_jax.losses.advantage import centered, leave_one_out, normalized, over_rate

VOCABULARY = 7
NORMALIZERS = ("constant", "sequence_mean")


def policy_gradient(name, options, normalizer, advantage=centered, drift=0.0):
    """The gradient with regard to the logits, where π_old is the policy itself, `drift` away."""
    groups, size = 4, 5
    answers = draw_answers(seed=4, groups=groups, size=size)
    correct_QK = jnp.asarray([answer.reward for answer in answers]).reshape(groups, size)
    length_QK = jnp.asarray([len(answer.logp) for answer in answers], jnp.int32).reshape(groups, size)
    advantages = np.asarray(advantage(correct_QK, length_QK, 64)).ravel()
    answers = [answer._replace(advantage=a) for answer, a in zip(answers, advantages, strict=True)]
    packed = pack([answers[i : i + 4] for i in range(0, len(answers), 4)], length=34, dtype=np.float64)
    random = np.random.default_rng(5)
    token_BT1 = random.integers(0, VOCABULARY, (*packed.logp_BT.shape, 1))
    drift_BT = drift * random.normal(size=packed.logp_BT.shape)
    loss = resolve(name, options)

    def objective(logits_BTV):
        logp_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), token_BT1, axis=-1)[..., 0]
        batch = packed.batch._replace(old_logp_BT=jax.lax.stop_gradient(logp_BT) - drift_BT)
        return total_loss(loss.function(logp_BT, batch), batch, totals_of(answers, np.float64), normalizer, 64)

    return np.asarray(
        jax.jit(jax.grad(objective))(jnp.asarray(random.normal(size=(*packed.logp_BT.shape, VOCABULARY))))
    )


def assert_same_gradient(first, second):
    assert np.abs(first).max() > 0
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-14 * np.abs(first).max())


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("ratio", ["token", "answer"])
@pytest.mark.parametrize(
    ("omega", "peer", "advantage"), [("sqrt_odds", "grpo", normalized), ("one_minus_rate", "dr_grpo", centered)]
)
@jax.enable_x64(True)
def test_nft_is_its_peer_on_policy(omega, peer, advantage, ratio, normalizer):
    mine = policy_gradient("nft", {"omega": omega, "ratio": ratio}, normalizer)
    assert_same_gradient(mine, policy_gradient(peer, {}, normalizer, advantage))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("ratio", ["token", "answer", "mean"])
@jax.enable_x64(True)
def test_nft_with_the_odds_is_maxrl_on_policy(ratio, normalizer):
    mine = policy_gradient("nft", {"omega": "odds", "ratio": ratio}, normalizer)
    assert_same_gradient(mine, policy_gradient("maxrl", {}, normalizer, over_rate))


@jax.enable_x64(True)
def test_rloo_is_dr_grpo_times_its_factor_at_any_ratio():
    for drift in (0.0, 0.5):
        mine = policy_gradient("rloo", {}, "constant", leave_one_out, drift)
        assert_same_gradient(mine, 5 / 4 * policy_gradient("dr_grpo", {}, "constant", centered, drift))


@pytest.mark.parametrize("name", ["gspo", "gmpo", "cispo", "sapo", "dppo"])
@jax.enable_x64(True)
def test_other_ratios_are_grpo_on_policy_and_not_off_policy(name):
    theirs = policy_gradient("grpo", {}, "sequence_mean", normalized)
    assert_same_gradient(policy_gradient(name, {}, "sequence_mean", normalized), theirs)
    theirs = policy_gradient("grpo", {}, "sequence_mean", normalized, drift=0.5)
    mine = policy_gradient(name, {}, "sequence_mean", normalized, drift=0.5)
    assert np.abs(mine - theirs).max() > 0.05 * np.abs(theirs).max()


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@jax.enable_x64(True)
def test_nft_value_clamp_does_not_matter_on_policy(epsilon):
    assert_same_gradient(
        policy_gradient("nft", {"epsilon": epsilon}, "constant"), policy_gradient("dr_grpo", {}, "constant")
    )


@jax.enable_x64(True)
def test_nft_differs_from_dr_grpo_off_policy():
    mine = policy_gradient("nft", {}, "constant", drift=0.5)
    theirs = policy_gradient("dr_grpo", {}, "constant", drift=0.5)
    assert np.abs(mine - theirs).max() > 0.05 * np.abs(mine).max()


@pytest.mark.parametrize("drift", [0.0, 0.5])
@jax.enable_x64(True)
def test_rft_is_nft_without_negatives_and_weights(drift):
    mine = policy_gradient("nft", {"omega": "one", "negative_weight": 0.0}, "constant", drift=drift)
    assert_same_gradient(mine, policy_gradient("rft", {}, "constant", drift=drift))


@jax.enable_x64(True)
def test_rft_is_not_nft_without_negatives_alone():
    mine = policy_gradient("nft", {"negative_weight": 0.0}, "constant")
    assert np.abs(mine - policy_gradient("rft", {}, "constant")).max() > 0.05 * np.abs(mine).max()


@pytest.mark.parametrize("drift", [0.0, 0.5])
@jax.enable_x64(True)
def test_contrast_is_not_nft(drift):
    mine = policy_gradient("nft", {}, "constant", drift=drift)
    assert np.abs(mine - policy_gradient("contrast", {}, "constant", drift=drift)).max() > 0.05 * np.abs(mine).max()
