"""Rewards of single tokens, by a function of the user's own: what a token's advantage gets beside its answer's."""

import inspect
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nft_jax.own_code import OwnCodeError, check_call, describe_error, load
from nft_jax.types import Array

# `(token_QKT, length_QK) -> reward_QKT`, 0 after the end of an answer.
TokenReward = Callable[[Array, Array], Array]
_KIND, _FORM = "token reward", "reward(token_QKT, length_QK, *, texts)"


def load_token_reward(name: str) -> Callable:
    """Returns the function that "module:function" names.

    Raises:
      ValueError: as `own_code.load`, and for a function of other arguments.
    """
    function = load(name, _KIND.replace(" ", "_"))
    check_call(function, name, _KIND, _FORM)
    return function


def bind_token_reward(name: str, texts: Sequence[str]) -> TokenReward:
    """Returns the rewards of tokens by "module:function", which is traced inside the step, as a loss is.

    The function gets the ids of whole groups' answers, `token_QKT` int32, and their lengths, `length_QK` int32, and
    returns a float32 reward of each token. If it has the keyword-only parameter `texts`, it gets the text of each id.

    Raises:
      ValueError: as `load_token_reward`, and for a function that fails or gives another shape.
    """
    function = load_token_reward(name)
    given = {"texts": tuple(texts)} if "texts" in inspect.signature(function).parameters else {}

    def reward(token_QKT: Array, length_QK: Array) -> Array:
        inside_QKT = jnp.arange(token_QKT.shape[-1])[None, None] < length_QK[..., None]
        return jnp.where(inside_QKT, function(token_QKT, length_QK, **given), 0.0)

    inputs = jax.ShapeDtypeStruct((2, 3, 4), jnp.int32), jax.ShapeDtypeStruct((2, 3), jnp.int32)
    try:
        found = jax.eval_shape(lambda *each: function(*each, **given), *inputs)
    except (Exception, SystemExit) as error:
        raise OwnCodeError(f"{_KIND} {name!r}: {describe_error(error)}") from error
    if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (inputs[0].shape, jnp.float32):
        raise OwnCodeError(f"{_KIND} {name!r} gave {found} for ids of shape (2, 3, 4); want float32[2,3,4]")
    return reward


def sum_to_end(reward_QKT: Array) -> Array:
    """Computes the return of each token: the sum of the rewards from it to the end of its answer.

    return_t = Σ_{s ≥ t} reward_s

    A policy gradient with rewards of steps multiplies ∇log π of a token by what comes after it: Sutton et al., "Policy
    gradient methods for reinforcement learning with function approximation" (2000).
    """
    return jnp.flip(jnp.cumsum(jnp.flip(reward_QKT, axis=-1), axis=-1), axis=-1)
