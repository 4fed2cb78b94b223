"""Attention over a cache that is split over data shards."""

import jax
from jax.sharding import PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.parallel.mesh import SHARDS, shard_axes


def decode_on_shards(attend, mesh, query, column, cache, stack, layer):
    """What `attend` gives inside the `shard_map` of data shards."""
    rows, room = PartitionSpec(SHARDS), PartitionSpec(None, None, SHARDS)
    run = shard_map(
        lambda query, column, cache, layer: attend(query, column, cache, stack, layer),
        mesh=mesh,
        axis_names=shard_axes(mesh),
        in_specs=(rows, rows, room, PartitionSpec()),
        out_specs=rows,
        check_vma=False,
    )
    return jax.jit(run)(query, column, cache, layer)
