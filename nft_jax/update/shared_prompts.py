"""Prompts that rows share: read once an update, with a gradient through their keys and values.

    d objective/d weights = Σ micro-batches of rows, keys held fixed  +  (d objective/d keys) · (d keys/d weights)

Micro-batches of rows give the first part and d objective/d keys; one backward pass through the prompts gives the
second.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.models.attention import PromptKeys
from nft_jax.models.transformer import Transformer
from nft_jax.parallel import layout, scopes
from nft_jax.parallel.layout import Placement
from nft_jax.parallel.mesh import DATA
from nft_jax.precision import accumulation_dtype
from nft_jax.rounding import ceil_div
from nft_jax.types import Array, Prompts
from nft_jax.update.packing import PackedRows, Rows

Keys = tuple[Array, Array]


def loop_micro_batches(
    tree: Any, used: Array, count: int, mesh: Mesh, body: Callable, carry: Any, phase: str = scopes.MICRO_BATCH
) -> Any:
    """Runs `body(micro_batch, start, carry)` on `count` items of every shard at a time; returns the last `carry`.

    Arrays of `tree` have axes `[X, items, …]`, over the data shards of one replica. Only the first `used` items are
    processed (one number a shard, or one for all). The number of micro-batches is a runtime value, equal on all shards.
    A micro-batch has items `start` to `start + count − 1` of all shards in one axis.
    """

    def step(index, carry):
        start = index * count
        cut = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=1), tree)
        flat = layout.split_rows(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), cut), mesh, over=DATA)
        return body(flat, start, carry)

    with jax.named_scope(phase):
        return jax.lax.fori_loop(0, ceil_div(jnp.max(used), count), step, carry)


def prompts_at_once(prompts: int, max_prompt_tokens: int, rows: int, row_tokens: int) -> int:
    """Returns how many of a shard's prompts are read together: as many as fit a micro-batch's tokens, at least 1."""
    return min(prompts, max(rows * row_tokens // max_prompt_tokens, 1))


class SharedPrompts:
    """Computes the keys and values of shared prompts, and the gradient through them; `[L, X, Q, P, G, H]` each.

    `model` binds weights; `rows` is the number of rows of a shard in a micro-batch. If rows hold their own prompts,
    the methods take and return None in place of keys.
    """

    def __init__(self, model: Callable[[Any], Transformer], placement: Placement, mesh: Mesh, rows: int):
        self.model, self.placement, self.mesh, self.count = model, placement, mesh, rows

    def read(self, weights: Any, packed: PackedRows) -> Keys | None:
        """Computes the keys and values of the prompts."""
        if packed.prompts is None:
            return None
        X, Q, _ = packed.prompts.token_QP.shape

        def fill(prompts, start, keys):
            def insert(x, new):
                new = new.reshape(new.shape[0], X, -1, *new.shape[2:])
                return jax.lax.dynamic_update_slice_in_dim(x, new, start, axis=2)

            return layout.split_keys(jax.tree.map(insert, keys, self._keys(weights, prompts)), self.mesh)

        one = jax.eval_shape(self._keys, weights, jax.tree.map(lambda x: x[:, 0], packed.prompts))
        room = jax.tree.map(lambda x: jnp.zeros((x.shape[0], X, Q, *x.shape[2:]), x.dtype), one)
        return self._loop_prompts(packed, fill, layout.split_keys(room, self.mesh))

    def take_rows(self, keys: Keys | None, rows: Rows) -> Keys | None:
        """Returns the keys and values of each row's prompt: `[L, B, P, G, H]` each."""

        def take(x):
            read = jax.vmap(lambda x_LQ, index: x_LQ[:, index], in_axes=(1, 0), out_axes=1)
            x = read(x, rows.prompt.index_B.reshape(x.shape[1], -1))
            return x.reshape(x.shape[0], -1, *x.shape[3:])

        return jax.tree.map(take, keys)

    def zero_gradient(self, keys: Keys | None) -> Keys | None:
        """Returns a zero gradient with respect to `keys`, in float32."""
        return layout.split_keys(
            jax.tree.map(lambda x: jnp.zeros(x.shape, accumulation_dtype(x.dtype)), keys), self.mesh
        )

    def add(self, gradient: Keys | None, take_rows: Keys | None, rows: Rows) -> Keys | None:
        """Adds the gradient with respect to the rows' keys to `gradient`, that with respect to the prompts' keys."""

        def add_rows(x, new):
            X = x.shape[1]
            write = jax.vmap(lambda x_LQ, index, new: x_LQ.at[:, index].add(new), in_axes=(1, 0, 1), out_axes=1)
            new = new.reshape(new.shape[0], X, -1, *new.shape[2:]).astype(x.dtype)
            return write(x, rows.prompt.index_B.reshape(X, -1), new)

        return layout.split_keys(jax.tree.map(add_rows, gradient, take_rows), self.mesh)

    def pull(self, weights: Any, packed: PackedRows, by_keys: Keys | None, add: Callable, gradient: Any) -> Any:
        """Adds to the weights' `gradient` the part that goes through the keys; `add` sums two such gradients."""
        if packed.prompts is None:
            return gradient

        def add_prompts(prompts, start, gradient):
            keys, pull = jax.vjp(lambda weights: self._keys(weights, prompts), weights)
            count = keys[0].shape[1] // by_keys[0].shape[1]

            def cut(x, like):
                return jax.lax.dynamic_slice_in_dim(x, start, count, axis=2).reshape(like.shape).astype(like.dtype)

            return add(gradient, *pull(jax.tree.map(cut, by_keys, keys)))

        return self._loop_prompts(packed, add_prompts, gradient)

    def _keys(self, weights, prompts: Prompts):
        return self.model(weights).prompt_keys(prompts, self.placement)

    def _loop_prompts(self, packed, body, carry):
        (_, Q, P), T = packed.prompts.token_QP.shape, packed.rows.target_BT.shape[-1]
        count = prompts_at_once(Q, P, self.count, T)
        used, phase = packed.prompts_used, scopes.PROMPT_BATCH
        return loop_micro_batches(packed.prompts, used, count, self.mesh, body, carry, phase)


def make_prompt_keys(keys: Keys | None, rows: Rows) -> PromptKeys | None:
    """Puts the rows' keys into the form that the model takes."""
    return None if keys is None else PromptKeys(*keys, rows.prompt.seen_B)
