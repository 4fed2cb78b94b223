"""Block sizes of the attention kernels for GPUs, by what a GPU's shared memory holds.

The first choice of each list below is the one that was measured, on an H200 with heads of 64 and 128 in 16 bits. The
next ones need less.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_KIB = 1024
# KiB that a block of threads can ask for, by compute capability (CUDA C++ Programming Guide); 99 for others.
SHARED_KIB = {"8.0": 163, "8.6": 99, "8.7": 163, "8.9": 99, "9.0": 227, "10.0": 227, "12.0": 99}
# Queries and keys of the forward pass; queries and keys of both backward passes; columns and stages of decoding.
FORWARD = ((128, 128), (128, 64), (64, 64), (64, 32), (32, 32))
# On an H200, 64 was 1.5 times as fast as 32, JAX's default. Float32 takes the default.
BACKWARD = (64, 32)
# Most numbers in one sum of the backward pass. With twice as many, 64 tokens of heads of 256, ptxas spills 33 kB of
# registers for an A100, and 2.9 for an H200; with 32 tokens 0.6 and 0.7.
LARGEST_SUM = 64 * 128
DECODE = ((64, 4), (64, 3), (64, 2), (32, 2))
MIN_ROWS = 16  # of a product on the matrix units


class Gpu(NamedTuple):
    """What of a GPU limits a kernel's blocks.

    Attributes:
      generation: The compute capability before the point.
      shared: Bytes of shared memory that a block of threads can ask for.
    """

    generation: int
    shared: int


class Blocks(NamedTuple):
    """Blocks of attention over rows.

    Attributes:
      queries, keys: Tokens of a block in the forward pass.
      backward: Tokens of a block, of queries as of keys, in the backward pass.
    """

    queries: int
    keys: int
    backward: int


class DecodeBlocks(NamedTuple):
    """Blocks of the decode loop's attention: columns of the cache in one product, and how many loads are under way."""

    columns: int
    stages: int


def describe_gpu(device: jax.Device) -> Gpu:
    """Returns a GPU's limits: as JAX states them, else by its compute capability."""
    capability = str(device.compute_capability)
    shared = getattr(device, "shared_memory_per_block_optin", None)
    return Gpu(int(capability.partition(".")[0]), int(shared or SHARED_KIB.get(capability, 99) * _KIB))


def forward_bytes(queries: int, keys: int, head_size: int, dtype: str, generation: int) -> int:
    """Returns at least the bytes of shared memory that the forward pass over rows needs.

    With q queries and k keys of a block, heads of h (rounded up to a power of two) and b bytes a number:

      b ((q + 2 k) h + q k) + 4 k        in general: queries, keys, values, weights, segments
      b (q + 2 k) h + 4 k                in 16 bits, if h is at most 128 and q at least 16 a warp: weights in registers
      4 ((q + 2 k) h + q k) + 4 (q + k)  in float32, whose exact products use no matrix units
      b (q + 4 k) h + 4 k + 544          in generations 9 to 11 if that is more, and q at least 64: products read shared
                                         memory, and the next keys and values are loaded beside them

    Derived from what the compiler of JAX 0.10.2 asks for, for heads of 16 to 512, in generations 8, 9, 10 and 12. With
    16 bits and heads of 64 and more it is exact but for 544 bytes; in float32 it is an upper bound.
    """
    size, head = jnp.dtype(dtype).itemsize, _next_power_of_two(head_size)
    exact, warps = size == 4, 4 if head <= 64 else 8
    weights = 0 if not exact and head <= 128 and queries >= 16 * warps else queries * keys
    needed = size * ((queries + 2 * keys) * head + weights) + 4 * (keys + exact * queries)
    if _multiplies_shared(generation, queries):
        needed = max(needed, size * (queries + 4 * keys) * head + 4 * keys + 544)
    return needed


def backward_bytes(block: int, head_size: int, dtype: str, generation: int) -> int:
    """Returns at least the bytes of shared memory that the backward pass over rows needs.

    With the letters of `forward_bytes` and c tokens of a block: b (n c h + c²) + 12 c + 64. The n is 4, for queries,
    keys, values and the gradient of the output; if c is at least 64, it is 6 in generation 9, and 8 in 10 and 11.
    """
    tiles = (6 if generation == 9 else 8) if _multiplies_shared(generation, block) else 4
    size = jnp.dtype(dtype).itemsize
    return size * (tiles * block * _next_power_of_two(head_size) + block**2) + 12 * block + 64


def decode_bytes(columns: int, stages: int, rows: int, head_size: int, generation: int) -> int:
    """Returns at least the bytes of shared memory that the decode loop's attention needs, in 16 bits.

    With c columns, s stages (2 or more), heads of h and r queries that share keys (rounded up to a power of two):

      4 (s − 1) c h + 2 r (h + c)    in general: keys and values under way, queries, weights
      4 s c h + 2 r (h + c) + 544    in generations 9 to 11 if r is at least 64
    """
    held, rest = (stages, 544) if _multiplies_shared(generation, rows) else (stages - 1, 0)
    return 4 * held * columns * head_size + 2 * rows * (head_size + columns) + rest


def choose_blocks(head_size: int, dtype: str, gpu: Gpu | None = None) -> Blocks | None:
    """Returns the first blocks that fit the GPU, or without one (emulation) the first; None if none do."""
    largest = LARGEST_SUM // _next_power_of_two(head_size)
    backward = [x for x in (BACKWARD[-1:] if dtype == "float32" else BACKWARD) if x <= largest]
    if gpu is None:
        return Blocks(*FORWARD[0], backward[0]) if backward else None
    generation, shared = gpu
    pair = next((x for x in FORWARD if forward_bytes(*x, head_size, dtype, generation) <= shared), None)
    block = next((x for x in backward if backward_bytes(x, head_size, dtype, generation) <= shared), None)
    return Blocks(*pair, block) if pair and block else None


def choose_decode_blocks(head_size: int, group: int, gpu: Gpu | None = None) -> DecodeBlocks | None:
    """Returns the first blocks that fit the GPU, for `group` queries that share keys, as `choose_blocks` does."""
    if gpu is None:
        return DecodeBlocks(*DECODE[0])
    rows = max(MIN_ROWS, _next_power_of_two(group))
    fits = (x for x in DECODE if decode_bytes(*x, rows, head_size, gpu.generation) <= gpu.shared)
    return next((DecodeBlocks(*x) for x in fits), None)


def _next_power_of_two(size: int) -> int:
    """Returns the next power of two."""
    return 1 << (size - 1).bit_length()


def _multiplies_shared(generation: int, rows: int) -> bool:
    """Returns whether products of so many rows read their operands out of shared memory (wgmma, tcgen05)."""
    return 9 <= generation < 12 and rows >= 64
