"""What a machine can do, and what a program asks of it."""

import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nft_jax.config import Config

SIZE, LONG, TIMES = 2048, 1 << 26, 5


def limits() -> dict[str, float]:
    """This machine's own limits, the best of five.

    `matmul_gflops`  GFLOP/s of a float32 matrix product, 2048 × 2048 × 2048
    `bandwidth_gbs`  GB/s read and written by adding to 256 MiB in place, whose pages have been there before
    """
    square = jnp.ones((SIZE, SIZE))
    product = jax.jit(jnp.matmul)
    # Donated: a fresh output would be timed by the kernel's mapping of its pages, which is several times slower.
    add = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    return {
        "matmul_gflops": 2 * SIZE**3 / _least_seconds(lambda _: product(square, square), square) / 1e9,
        "bandwidth_gbs": 2 * 4 * LONG / _least_seconds(add, jnp.ones(LONG)) / 1e9,
    }


def _least_seconds(function: Callable[[jax.Array], jax.Array], array: jax.Array) -> float:
    """Of a call with what the call before gave; the first one compiles and doesn't count."""
    array = jax.block_until_ready(function(array))
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        array = jax.block_until_ready(function(array))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def peak_memory_mib() -> dict[str, float]:
    """The most that this process ever held, and where the backend tells, each device."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    for device in jax.local_devices():
        statistics = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            found[str(device)] = statistics["peak_bytes_in_use"] / 2**20
    return found


def forward_flops(config: Config, weights: int, tokens: float, context: float) -> float:
    """Of a forward pass: 2 a weight and token (the embedding's rows are looked up, the head's multiplied), and
    attention's two products over a mean context.
    """
    model = config.model
    looked_up = 0 if model.tied_embedding else model.vocab * model.width
    return tokens * (2 * (weights - looked_up) + 4 * model.layers * model.heads * model.head_size * context)
