"""The random streams of a run: every draw belongs to one of them, and no two share a key."""

import jax

from nft_jax.types import Array

STREAMS = ("weights", "warm_start", "order", "rollout", "pairs", "evaluation", "adapters", "loss")


def stream(seed: int, name: str) -> Array:
    """Returns the key of the stream called `name`."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))
