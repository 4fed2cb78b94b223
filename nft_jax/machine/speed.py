"""A machine's measured limits, and the FLOPs and bytes that a step needs."""

import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nft_jax.config import Config
from nft_jax.losses import Loss
from nft_jax.models.sharded import ShardedModel
from nft_jax.update.minibatches import find_recomputed

# Rows of the square matrices, length of the vector, and number of timings.
SIZE, LONG, TIMES = 2048, 1 << 26, 5
# Accelerators get larger arrays and several calls a timing, so that the call itself does not count.
ACCELERATOR_FACTOR, CALLS = 4, 16
# Cost of an update in forward passes, by `model.remat`: one, two for the backward pass, and recomputation.
PASSES = {"none": 3, "dots": 3, "attention": 4, "full": 4, "offload": 4}


def measure_limits(dtype: str = "float32") -> dict[str, float]:
    """Measures the first device: the best of five timings.

    Returns:
      {"matmul_gflops": GFLOP/s of a product of square random matrices of this dtype (2048 rows; accelerators: 8192),
      "bandwidth_gbs": GB/s read and written by adding to 256 MiB (accelerators: 1 GiB) in place}.
    """
    times, calls = (1, 1) if jax.devices()[0].platform == "cpu" else (ACCELERATOR_FACTOR, CALLS)
    size, long = SIZE * times, LONG * times
    square = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    # Donated, because the operating system maps the pages of a fresh output, which takes several times longer.
    add = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    return {
        "matmul_gflops": 2 * size**3 / _least_seconds(lambda _: product(square, square), square, calls) / 1e9,
        "bandwidth_gbs": 2 * 4 * long / _least_seconds(add, jnp.ones(long), calls) / 1e9,
    }


def _least_seconds(function: Callable[[jax.Array], jax.Array], array: jax.Array, calls: int = 1) -> float:
    """Returns the least seconds of a call. Each call gets the result of the one before; the first one compiles."""
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
    """Returns the peak MiB of this process ("host"), and of each device whose backend counts them."""
    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    for device in jax.local_devices():
        statistics = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            peaks[str(device)] = statistics["peak_bytes_in_use"] / 2**20
    return peaks


def forward_flops(config: Config, weights: int, tokens: float, context: float) -> float:
    """Counts the FLOPs of a forward pass.

    They are 2 a weight and token, and attention's two products. Weights that a token does not meet are left out: the
    embedding, which is a lookup, and experts that do not read the token.

    Args:
      context: mean number of tokens that a token attends to.
    """
    model = config.model
    looked_up = 0 if model.tied_embedding else model.vocab * model.width
    idle = 3 * model.layers * (model.experts - model.experts_per_token) * model.width * model.mlp_width
    return tokens * (2 * (weights - looked_up - idle) + 4 * model.layers * model.heads * model.head_size * context)


def extra_passes(config: Config, loss: Loss) -> float:
    """Counts an update's forward passes without a backward one: by the reference, for `prepare`, for log π_old.

    log π_old is the mean over a step's updates.
    """
    recomputed = len(find_recomputed(config, loss)) / config.updates_per_step
    return (config.loss.kl_weight > 0) + loss.forward + recomputed


def update_flops(
    config: Config, model: ShardedModel, tokens: float, context: float, passes: float = PASSES["none"]
) -> float:
    """Counts the FLOPs of forward and backward passes, which are three, those that recompute, and `extra_passes`.

    Frozen weights beside adapters have no gradient, so one of the products with each is left out.

    Args:
      context: as in `forward_flops`.
      passes: from `PASSES`, of which three count no recomputation, and `extra_passes`.
    """
    adapters = model.adapters
    left_out = forward_flops(config, model.parameters, tokens, 0) if adapters else 0
    return passes * forward_flops(config, model.parameters + adapters, tokens, context) - left_out


def decode_bytes(config: Config, weights: int, tokens: float, context: float, slots: float) -> float:
    """Counts the bytes that decoding must read: all weights for every `slots` tokens, and each token's context.

    An embedding that is not also the head is a lookup, and does not count.

    Args:
      context: mean number of tokens whose keys and values a token reads.
      slots: number of slots that draw a token at the same time.
    """
    model = config.model
    looked_up = 0 if model.tied_embedding else model.vocab * model.width
    numbers = (weights - looked_up) / slots + 2 * model.layers * model.kv_heads * model.head_size * context
    return tokens * numbers * jnp.dtype(model.dtype).itemsize
