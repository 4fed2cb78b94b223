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


def centered(correct_QK: Array, length_QK: Array, max_answer_tokens: int) -> Array:
    """Returns the reward minus its mean in the group.

    advantage = correct − rate

    Dr. GRPO: Liu et al., arXiv 2503.20783, section 3.2.
    """
    assert_group_inputs(correct_QK, length_QK)
    del max_answer_tokens
    return correct_QK - jnp.mean(correct_QK, axis=1, keepdims=True)


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
    centered_QK = reward_QK - jnp.mean(reward_QK, axis=1, keepdims=True)
    freedom = max(reward_QK.shape[1] - int(sample_std), 1)
    std_Q1 = jnp.sqrt(jnp.sum(centered_QK**2, axis=1, keepdims=True) / freedom)
    # Not std > 0: rounding can make the mean of equal rewards differ from them, and 1e-8 / 1e-8 is an advantage of 1.
    varies_Q1 = jnp.max(reward_QK, axis=1, keepdims=True) > jnp.min(reward_QK, axis=1, keepdims=True)
    return jnp.where(varies_Q1, centered_QK / (jnp.where(varies_Q1, std_Q1, 1) + delta), 0)
