"""The decode loop's attention by cuDNN, through JAX's public function, directly in the cache.

Each slot is a sequence as long as its live columns, with one query, for which cuDNN has a kernel of its own. In a cache
of one block in `cache.axis_orders`' order, nothing is transposed or copied: neither queries, cache nor outputs.
"""

import jax
import jax.numpy as jnp

from nft_jax.models.cache import Cache, read_block
from nft_jax.types import Array


def decode_attention(
    query_SNH: Array, column_S: Array, cache: Cache, stack: int, layer: Array, *, interpret: bool = False
) -> Array:
    """Computes `attention.decode_attention`, each slot over its live columns only; the cache must have one block.

    `interpret` lets XLA compute the same on any platform.
    """
    key_SGHW, value_SGWH = read_block(cache, stack, layer, 0)
    out_S1NH = jax.nn.dot_product_attention(
        query_SNH[:, None],
        jnp.transpose(key_SGHW, (0, 3, 1, 2)),
        jnp.transpose(value_SGWH, (0, 2, 1, 3)),
        key_value_seq_lengths=column_S + 1,
        implementation="xla" if interpret else "cudnn",
    )
    return out_S1NH[:, 0]
