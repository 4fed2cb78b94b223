"""Negative-aware fine-tuning: maximum likelihood on correct and, by an implicit negative policy, incorrect answers."""

import jax
import jax.numpy as jnp

from nft_jax.losses.omega import OMEGAS, rate_is_clamped, trained_rate
from nft_jax.losses.ratio import MAX_LOG_RATIO, assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.reduce import answer_length, answer_mean, answer_sum
from nft_jax.losses.registry import declare, find
from nft_jax.types import Array, LossBatch

# ε = 0 is a valid ablation, but log 0 is infinite. Below this value float32 can't distinguish 1 − rate · R from 0.
SMALLEST_EPSILON = 1e-6


@declare(unit="answer", normalizer="constant", groups="mixed", by_verdicts=True)
def nft(
    logp_BT: Array,
    batch: LossBatch,
    *,
    omega: str = "one_minus_rate",
    epsilon: float = 1.0,
    negative_weight: float = 1.0,
    ratio: str = "token",
    clamp_rate: bool = True,
    sides: str = "",
) -> Array:
    """Maximizes the likelihood of correct answers, and that of incorrect ones under an implicit negative policy.

    R              = exp(min(logp − old_logp, 10))
    negative_ratio = (1 − rate · R) / (1 − rate)                 the implicit negative policy over π_old
    max_v(x, ε)    = max(x, ε) in value, x in gradient
    loss           = −ω(rate) · [reward · log R + negative_weight · (1 − reward) · log max_v(negative_ratio, ε)]

    Gradient of the loss = −multiplier · ∇logp, the multiplier being +ω on correct tokens and
    −negative_weight · ω · rate · R / (1 − rate) / max(negative_ratio, ε) on incorrect ones.

    `omega` "one", "one_minus_rate" (on-policy: Dr. GRPO), "sqrt_odds" (on-policy: GRPO) or "odds" (on-policy: MaxRL).
    `epsilon` below 1e-6 counts as 1e-6.
    `ratio` "token": one R a token; "answer": one R an answer, exp(sum of log R over its tokens), and one term; or
    "mean": one R an answer, exp(mean of log R), and as many terms as tokens (length-normalized). The term of a correct
    answer is the sum of its token terms. The term of an incorrect answer is divided evenly among its tokens; on-policy,
    its gradient is that of the token variant.
    `sides` empty, or a function `rate_BT -> (positive_BT, negative_BT)` of your own: what multiplies the terms of
    correct and of incorrect answers. `omega` and `ratio` may be your own functions too: "module:function".
    `clamp_rate` clamps the rate to [0.02, 0.98] first. Without it a group of rate 1 has no negative
    policy; an incorrect token in it (there should be none) has loss 0.
    log R is bounded only inside R: above the bound an incorrect token has no gradient, a correct one keeps its own.

    Shapes [B, T]; nats per token; 0 outside answers.
    Chen et al., arXiv 2505.18116, theorem 3.1 and algorithm 1; on-policy, proposition 4.2.

    Raises:
      ValueError: for an unknown `omega` or `ratio`, and for a negative `epsilon` or `negative_weight`.
    """
    assert_loss_inputs(logp_BT, batch)
    for name, value in (("epsilon", epsilon), ("negative_weight", negative_weight)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be 0 or more, not {value}")
    weight = find(omega, OMEGAS, "omega")
    rate_BT = trained_rate(batch.rate_BT, clamp_rate)
    log_ratio_BT = log_ratio(logp_BT, batch)
    unit_log_ratio_BT, share_BT = find(ratio, RATIOS, "ratio")(log_ratio_BT, batch.answer_BT)
    negative_BT = share_BT * jnp.log(max_v(_negative_ratio(unit_log_ratio_BT, rate_BT), epsilon))
    positive_BT = batch.reward_BT * log_ratio_BT
    negative_BT = negative_weight * (1 - batch.reward_BT) * negative_BT
    if sides:
        up_BT, down_BT = find(sides, {}, "sides")(rate_BT)
        positive_BT, negative_BT = up_BT * positive_BT, down_BT * negative_BT
    gain_BT = positive_BT + negative_BT
    return jnp.where(batch.answer_BT >= 0, -weight(rate_BT) * gain_BT, 0.0)


def max_v(x: Array, epsilon: float) -> Array:
    """Returns `max(x, ε)` in value and `x` in gradient: a clamped token still trains, at a bounded weight.

    The paper writes x + stop_gradient(max(x, ε) − x). Here x − stop_gradient(x) is computed first: in the paper's order
    float32 gives −1e8 + (1 + 1e8) = 0, whose log is infinite.
    """
    return jax.lax.stop_gradient(jnp.maximum(x, max(epsilon, SMALLEST_EPSILON))) + (x - jax.lax.stop_gradient(x))


def ratio_statistics(
    logp_BT: Array, batch: LossBatch, *, epsilon: float = 1.0, ratio: str = "token", clamp_rate: bool = True
) -> dict[str, Array]:
    """Returns per-token diagnostics of the ratio and of the clamps, for averages over answer tokens; 0 outside answers.

    `ratio`              R of the token (or of its answer), bounded by exp(10)
    `log_ratio_clamped`  1 where log R > 10
    `rate_clamped`       1 where 0 < rate < 0.02 or 0.98 < rate < 1, whether or not the clamp is on
    `value_clamped`      1 on incorrect tokens where negative_ratio < ε

    The options are those of `nft`. Shapes [B, T].

    Raises:
      ValueError: for an unknown `ratio`.
    """
    assert_loss_inputs(logp_BT, batch)
    inside_BT = batch.answer_BT >= 0
    rate_BT = trained_rate(batch.rate_BT, clamp_rate)
    unit_log_ratio_BT, _ = find(ratio, RATIOS, "ratio")(log_ratio(logp_BT, batch), batch.answer_BT)
    clamped_BT = (batch.reward_BT == 0) & (_negative_ratio(unit_log_ratio_BT, rate_BT) < epsilon)
    statistics = {
        "ratio": bounded_ratio(unit_log_ratio_BT),
        "log_ratio_clamped": unit_log_ratio_BT > MAX_LOG_RATIO,
        "rate_clamped": rate_is_clamped(batch.rate_BT),
        "value_clamped": clamped_BT,
    }
    return {name: jnp.where(inside_BT, value_BT.astype(logp_BT.dtype), 0) for name, value_BT in statistics.items()}


def _token_term(log_ratio_BT: Array, answer_BT: Array) -> tuple[Array, Array]:
    """Gives each token a term of its own: its log R, and the share 1 of the term."""
    del answer_BT
    return log_ratio_BT, jnp.ones_like(log_ratio_BT)


def _answer_term(log_ratio_BT: Array, answer_BT: Array) -> tuple[Array, Array]:
    """Gives each answer one term: its summed log R, and an even share of the term for each of its tokens."""
    return answer_sum(log_ratio_BT, answer_BT), 1 / answer_length(answer_BT, log_ratio_BT.dtype)


def _mean_term(log_ratio_BT: Array, answer_BT: Array) -> tuple[Array, Array]:
    """Gives each token its answer's mean log R, and the share 1 of the term."""
    return answer_mean(log_ratio_BT, answer_BT), jnp.ones_like(log_ratio_BT)


RATIOS = {"token": _token_term, "answer": _answer_term, "mean": _mean_term}


def _negative_ratio(log_ratio_BT: Array, rate_BT: Array) -> Array:
    rate_BT = jnp.where(rate_BT < 1, rate_BT, 0.0)
    return (1 - rate_BT * bounded_ratio(log_ratio_BT)) / (1 - rate_BT)
