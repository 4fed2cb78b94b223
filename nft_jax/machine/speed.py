"""What a machine can do, and what a program asks of it."""

import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nft_jax.config import Config

SIZE, LONG, TIMES = 2048, 1 << 26, 5
# On accelerators, where else the calls would be timed: so many times the size, and so many calls at a time.
ACCELERATED, CALLS = 4, 16


def measure_limits(dtype: str = "float32") -> dict[str, float]:
    """The first device's own limits, the best of five.

    `matmul_gflops`  GFLOP/s of a product of square matrices of random numbers of this dtype: 2048 rows, or 8192
    `bandwidth_gbs`  GB/s read and written by adding to 256 MiB or 1 GiB in place, whose pages have been there before
    """
    times, calls = (1, 1) if jax.devices()[0].platform == "cpu" else (ACCELERATED, CALLS)
    size, long = SIZE * times, LONG * times
    square = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    # Donated: a fresh output would be timed by the kernel's mapping of its pages, which is several times slower.
    add = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    return {
        "matmul_gflops": 2 * size**3 / _least_seconds(lambda _: product(square, square), square, calls) / 1e9,
        "bandwidth_gbs": 2 * 4 * long / _least_seconds(add, jnp.ones(long), calls) / 1e9,
    }


def _least_seconds(function: Callable[[jax.Array], jax.Array], array: jax.Array, calls: int = 1) -> float:
    """Of a call with what the call before gave, `calls` of them at a time; the first one compiles and doesn't count."""
    array = jax.block_until_ready(function(array))
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        for _ in range(calls):
            array = function(array)
        jax.block_until_ready(array)
        seconds.append((time.perf_counter() - began) / calls)
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


def decode_bytes(config: Config, weights: int, tokens: float, context: float, slots: float) -> float:
    """The least that drawing so many tokens reads: all weights once for the tokens of `slots` slots (of an embedding
    that is not the head too, none), and keys and values of a mean context for each.
    """
    model = config.model
    looked_up = 0 if model.tied_embedding else model.vocab * model.width
    numbers = (weights - looked_up) / slots + 2 * model.layers * model.kv_heads * model.head_size * context
    return tokens * numbers * jnp.dtype(model.dtype).itemsize
