"""Data sheets of chips, from their makers' pages: figures for estimates, not measurements."""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One chip.

    Attributes:
      name: beginning of its topologies' names ("v5e:8x8"), or a GPU's short name.
      kind: beginning of JAX's `device_kind`.
      flops: FLOP/s of dense bfloat16 products.
      memory: bytes that a program may use.
      bandwidth: bytes/s of the chip's memory.
      links: bytes/s to other chips of the slice or machine, over all links together, in one direction.
      network: bytes/s to other slices or machines, the share of one chip; 0 if the maker does not state it.
      source: the maker's page.
    """

    name: str
    kind: str
    flops: float
    memory: float
    bandwidth: float
    links: float
    network: float
    source: str


# The makers state the links of both directions together; these are halves. A TPU's memory is what libtpu allows.
CHIPS = (
    Chip("v4", "TPU v4", 275e12, 30.75 * GIB, 1200e9, 300e9, 0, "cloud.google.com/tpu/docs/v4, arXiv 2304.01433"),
    Chip("v5e", "TPU v5 lite", 197e12, 15.75 * GIB, 819e9, 200e9, 3.1e9, "cloud.google.com/tpu/docs/v5e"),
    Chip("v5p", "TPU v5", 459e12, 95.74 * GIB, 2765e9, 600e9, 6.2e9, "cloud.google.com/tpu/docs/v5p"),
    Chip("v6e", "TPU v6 lite", 918e12, 31.25 * GIB, 1640e9, 400e9, 12.5e9, "cloud.google.com/tpu/docs/v6e"),
    Chip("t4", "Tesla T4", 65e12, 16e9, 320e9, 16e9, 0, "nvidia.com/en-us/data-center/tesla-t4"),
    Chip("l4", "NVIDIA L4", 121e12, 24e9, 300e9, 32e9, 0, "nvidia.com/en-us/data-center/l4"),
    Chip("a100", "NVIDIA A100", 312e12, 80e9, 2039e9, 300e9, 0, "nvidia.com/en-us/data-center/a100"),
    Chip("h100", "NVIDIA H100", 989e12, 80e9, 3350e9, 450e9, 0, "nvidia.com/en-us/data-center/h100"),
    Chip("h200", "NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 0, "nvidia.com/en-us/data-center/h200"),
)


def chip_of(kind: str) -> Chip | None:
    """Returns the chip with the longest `kind` that a JAX `device_kind` begins with; None if there is no such chip."""
    known = [chip for chip in CHIPS if kind.startswith(chip.kind)]
    return max(known, key=lambda chip: len(chip.kind), default=None)
