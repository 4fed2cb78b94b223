"""Advantages of the answers of a group: `(correct_QK, length_QK, max_answer_tokens, *, …) -> advantage_QK`.

`correct` is float, 1 for a correct answer and 0 for an incorrect one; `length` is int32, tokens of the answer;
`max_answer_tokens` is an int, the most tokens that an answer may have.
"""

import chex
import jax.numpy as jnp

from nft_jax.types import Array


def assert_group_inputs(correct_QK: Array, length_QK: Array) -> None:
    """Checks the inputs of an advantage function: same `[Q, K]` shape, floats and integers."""
    chex.assert_rank([correct_QK, length_QK], 2)
    chex.assert_equal_shape([correct_QK, length_QK])
    chex.assert_type([correct_QK, length_QK], [float, int])


def group_mean(value_QK: Array) -> Array:
    """Averages over each group, `[Q, 1]`; the mean of equal values is exactly that value.

    The compiler multiplies a sum by the rounded 1 / K, so that the mean of 41 ones would be below 1.
    """
    mean_Q1 = jnp.mean(value_QK, axis=1, keepdims=True)
    return jnp.clip(mean_Q1, jnp.min(value_QK, axis=1, keepdims=True), jnp.max(value_QK, axis=1, keepdims=True))


def centered(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns the reward minus its mean in the group.

    advantage = correct − rate

    Dr. GRPO: Liu et al., arXiv 2503.20783, section 3.2.
    """
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    return correct_QK - group_mean(correct_QK)


def leave_one_out(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns the reward minus the mean of the others of the group.

    advantage = correct − (sum of the others) / (K − 1) = K / (K − 1) · (correct − rate); 0 in a group of one

    RLOO: Ahmadian et al., arXiv 2402.14740.
    """
    K = correct_QK.shape[1]
    return K / max(K - 1, 1) * centered(correct_QK, length_QK, max_answer_tokens)


def over_rate(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns the reward minus its mean in the group, in units of the mean.

    advantage = (correct − rate) / rate, exactly 0 where rate = 0

    MaxRL: "Maximum likelihood reinforcement learning", arXiv 2602.02710.
    """
    rate_Q1 = group_mean(correct_QK)
    solved_Q1 = rate_Q1 > 0
    centered_QK = centered(correct_QK, length_QK, max_answer_tokens)
    return jnp.where(solved_Q1, centered_QK / jnp.where(solved_Q1, rate_Q1, 1), 0)


def raw(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns the reward itself: `advantage = correct`."""
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    return correct_QK


def deficit(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns what the reward lacks, as a penalty: `advantage = correct − 1`."""
    return raw(correct_QK, length_QK, max_answer_tokens) - 1


def calibrated(
    correct_QK: Array, length_QK: Array, max_answer_tokens: int, *, virtual: int = 1, delta: float = 1e-6
) -> Array:
    """Returns the reward in standard deviations from the mean, both of the group and `virtual` more correct answers.

    mean      = (sum + virtual) / (K + virtual)
    std       = sample standard deviation of these K + virtual rewards
    advantage = (correct − mean) / (std + delta), exactly 0 where all are correct

    The incorrect answers of a group without a correct one get a negative advantage, not 0.
    NGRPO: Nan et al., arXiv 2509.18851, advantage calibration; delta is that of the authors' code.

    Raises:
      ValueError: unless virtual is 1 or more, and delta 0 or more.
    """
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    if virtual < 1:
        raise ValueError(f"virtual must be 1 or more, not {virtual}")
    ones_Qn = jnp.ones((correct_QK.shape[0], virtual), correct_QK.dtype)
    together_QK = _standardize(jnp.concatenate([correct_QK, ones_Qn], axis=1), True, delta)
    return together_QK[:, : correct_QK.shape[1]]


def signed(
    correct_QK: Array,
    length_QK: Array,
    max_answer_tokens: int,
    *,
    positive_weight: float = 0.1,
    negative_weight: float = 1.0,
) -> Array:
    """Returns a weight for each side: `advantage = positive_weight · correct − negative_weight · (1 − correct)`.

    W-REINFORCE: Zhu et al., arXiv 2506.01347.

    Raises:
      ValueError: for a negative weight.
    """
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    for name, value in (("positive_weight", positive_weight), ("negative_weight", negative_weight)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be 0 or more, not {value}")
    return positive_weight * correct_QK - negative_weight * (1 - correct_QK)


def normalized(
    correct_QK: Array, length_QK: Array, max_answer_tokens: int, *, sample_std: bool = False, delta: float = 0.0
) -> Array:
    """Returns the reward minus its mean, in standard deviations of the group.

    advantage = (correct − rate) / (std + delta), exactly 0 where std = 0

    `sample_std` divides the variance by K − 1, not K; several libraries do, and add `delta` = 1e-6.
    GRPO: Shao et al., arXiv 2402.03300, section 4.1.2.

    Raises:
      ValueError: for a negative `delta`.
    """
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    return _standardize(correct_QK, sample_std, delta)


def overlong_normalized(
    correct_QK: Array,
    length_QK: Array,
    max_answer_tokens: int,
    *,
    overlong_buffer: int = 0,
    overlong_weight: float = 1.0,
    sample_std: bool = False,
    delta: float = 0.0,
) -> Array:
    """Returns the normalized advantage of rewards ±1 with DAPO's soft penalty on answers that come near the limit.

    penalty   = −clip((length − (max_answer_tokens − overlong_buffer)) / overlong_buffer, 0, 1)
    reward    = 2 correct − 1 + overlong_weight · penalty
    advantage = (reward − mean) / (std + delta), exactly 0 where std = 0

    `overlong_buffer` is in tokens; 0 means no penalty.
    DAPO: Yu et al., arXiv 2503.14476, eq. 9 (advantage) and 13 (penalty).

    Raises:
      ValueError: for a negative option, or a buffer above `max_answer_tokens`.
    """
    assert_group_inputs(correct_QK, length_QK)
    if not 0 <= overlong_buffer <= max_answer_tokens:
        raise ValueError(
            f"overlong_buffer must be between 0 and the answer limit {max_answer_tokens}, not {overlong_buffer}"
        )
    if not 0 <= overlong_weight < float("inf"):
        raise ValueError(f"overlong_weight must be 0 or more, not {overlong_weight}")
    reward_QK = 2 * correct_QK - 1
    if overlong_buffer:
        excess_QK = (length_QK - (max_answer_tokens - overlong_buffer)).astype(correct_QK.dtype)
        reward_QK -= overlong_weight * jnp.clip(excess_QK / overlong_buffer, 0, 1)
    return _standardize(reward_QK, sample_std, delta)


def _standardize(reward_QK: Array, sample_std: bool, delta: float) -> Array:
    if not 0 <= delta < float("inf"):
        raise ValueError(f"delta must be 0 or more, not {delta}")
    centered_QK = reward_QK - group_mean(reward_QK)
    freedom = max(reward_QK.shape[1] - int(sample_std), 1)
    std_Q1 = jnp.sqrt(jnp.sum(centered_QK**2, axis=1, keepdims=True) / freedom)
    varies_Q1 = jnp.max(reward_QK, axis=1, keepdims=True) > jnp.min(reward_QK, axis=1, keepdims=True)
    return jnp.where(varies_Q1, centered_QK / (jnp.where(varies_Q1, std_Q1, 1) + delta), 0)
