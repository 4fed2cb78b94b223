"""TPU slices that nobody holds, to compile for: libtpu's compiler needs no TPU."""

import importlib.util
import os

import jax

from nft_jax.machine.chips import CHIPS
from nft_jax.names import suggestion

# Of a v4 chip the two cores are one device.
EXTRA = {"v4": {"chip_config_name": "megacore"}}


def topology(name: str, slices: int = 1) -> list[jax.Device]:
    """The devices of `slices` slices such as "v5e:8x8".

    Raises:
      ValueError: without libtpu, with the line that installs it; and for a name that is no topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name}: libtpu is not installed, whose compiler this needs (no TPU): pip install libtpu"
        )
    known = [chip.name for chip in CHIPS if chip.kind.startswith("TPU")]
    chip, _, shape = name.partition(":")
    if chip not in known or not shape.replace("x", "").isdigit():
        raise ValueError(
            f"--topology={name}: write a chip and a shape, such as v5e:8x8 or v5p:4x4x4; chips: {', '.join(known)}"
            f"{suggestion(chip, known)}"
        )
    if slices < 1:
        raise ValueError(f"--slices={slices}: use 1 or more")
    _settle_libtpu()
    from jax.experimental import topologies

    asked = EXTRA.get(chip, {}) | ({"num_slices": slices} if slices > 1 else {})
    if set(shape) == {"1", "x"}:
        # A machine with one chip, such as a v5e-1: by itself libtpu takes hosts to have four.
        asked = asked | {"chips_per_host_bounds": (1, 1, 1)}
    try:
        return list(topologies.get_topology_desc(name, "tpu", **asked).devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(f"--topology={name}, --slices={slices}: libtpu refuses it: {error}") from error


def _settle_libtpu():
    # libtpu ends the process over flags of XLA that it doesn't know; jaxlib has read its own by now.
    jax.devices("cpu")
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "xla_cpu" not in flag]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    # Off a TPU VM there is no metadata server to ask, and another process may hold the library's lock.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
