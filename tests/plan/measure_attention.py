"""What the attention of one layer's packed rows, forward and backward, costs on an H100 by the compiler alone.

Prints, for each backend and shape, the kernels that start, the megabytes that their results take, and the temporaries
at the peak. FLOPs are not among them: the compiler counts none inside these kernels.

python tests/plan/measure_attention.py    # needs jax's plugin for CUDA: pip install -e .[cuda12]; no GPU
"""

import jax
import jax.numpy as jnp

from nft_jax.config import ModelConfig
from nft_jax.models.attention_backends import select_attention
from nft_jax.parallel.mesh import make_mesh
from nft_jax.plan import hlo
from nft_jax.plan.topology import find_devices

# Rows, their tokens, heads of queries and of keys, and their size.
SHAPES = {"0.5B, 256 + 512 tokens": (8, 767, 14, 2, 64), "7B, 512 + 3,584 tokens": (1, 4096, 28, 4, 128)}


def compile_layer(name, device, rows, tokens, heads, kv_heads, head_size):
    """Compiles the gradient of one layer's attention."""
    config = ModelConfig(heads=heads, kv_heads=kv_heads, head_size=head_size, dtype="bfloat16", attention=name)
    attention = select_attention(config, make_mesh(1, devices=[device]))

    def total(query, key, value, segment_BT):
        return jnp.sum(attention.rows(query, key, value, attention.describe(segment_BT)).astype(jnp.float32))

    place = jax.sharding.SingleDeviceSharding(device)
    query, key = (
        jax.ShapeDtypeStruct((rows, tokens, number, head_size), jnp.bfloat16, sharding=place)
        for number in (heads, kv_heads)
    )
    segment_BT = jax.ShapeDtypeStruct((rows, tokens), jnp.int32, sharding=place)
    return jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(query, key, key, segment_BT).compile()


def main():
    """Compiles and prints."""
    device = find_devices("h100:1")[0]
    for described, shape in SHAPES.items():
        for name in ("cudnn", "cudnn_packed"):
            compiled = compile_layer(name, device, *shape)
            started = [
                one.line
                for one in hlo.instructions(compiled.as_text())
                if not one.fused and hlo.operation(one.line) not in hlo.NO_KERNEL
            ]
            written = sum(hlo.result_bytes(line) for line in started) / 1e6
            temporaries = compiled.memory_analysis().temp_size_in_bytes / 1e6
            print(
                f"{described}, {name}: {len(started)} kernels, {written:.0f} MB of results, {temporaries:.0f} at once"
            )


if __name__ == "__main__":
    main()
