"""Fingerprints of runs: the settings, problems and weights that decide the numbers of a run."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.config import Config, Phase, settings_of, to_dict
from nft_jax.data.order import mix_bits
from nft_jax.data.prompts import PromptTable
from nft_jax.losses import LOSSES
from nft_jax.types import Array

# Beside what a run may reuse: the weights of a warm start, the runs of a study.
FINGERPRINT_FILE = "fingerprint.json"


def make_fingerprint(config: Config, tables: dict[str, PromptTable]) -> dict:
    """Returns what a checkpoint keeps of its run: every setting, and a digest of the prompts and answers by split."""
    return {"config": to_dict(config), "problems": {name: problems_digest(table) for name, table in tables.items()}}


def check_same(
    saved: dict, given: dict, where: Any, phases: Phase = Phase.RUN, varied: Collection[str] = frozenset()
) -> None:
    """Checks that a run can continue with the fingerprint `given` where a run with the fingerprint `saved` ended.

    Args:
      saved, given: two results of `make_fingerprint`.
      where: the folder of the saved run.
      phases: the settings that decide numbers of one of these phases must be equal.
      varied: names of settings and sections that may differ all the same.

    Raises:
      ValueError: with both values of everything that differs.
    """
    before, now = _settings(saved["config"]), _settings(given["config"])
    # A setting that only one of the two versions has does not count as a difference. An option of a custom loss that
    # only one of the two runs gives does.
    own = "loss.own." if before["loss.name"] == now["loss.name"] else ()
    shared = [name for name in before | now if (name in before and name in now) or name.startswith(own)]
    deciding = _deciding(given["config"], phases)
    faults = [
        f"config.{name}: the run has {before.get(name)!r}, given {now.get(name)!r}"
        for name in shared
        if before.get(name) != now.get(name) and _is_in(name, deciding) and not _is_in(name, varied)
    ]
    faults += [
        f"the {name} problems: the run has those of digest {saved['problems'].get(name)}, given {digest}"
        for name, digest in given["problems"].items()
        if saved["problems"].get(name) != digest
    ]
    if faults:
        raise ValueError(
            f"{where} holds another run:\n  " + "\n  ".join(faults) + f"\ngive its values to go on with it, or another "
            f"--workdir (and --config.base={where} to start from its weights)"
        )


def _deciding(config: dict, phases: Phase) -> set[str]:
    """Returns the names of the settings that decide numbers of these phases, and of the sections of loss options."""
    names = {setting.name for setting in settings_of(Config) if setting.decides & phases}
    if config["optimizer"]["schedule"] == "constant":
        # The number of steps matters only to a schedule that decays to the last step.
        names.discard("steps")
    return names | {f"loss.{name}" for name in (*LOSSES, "own") if "loss.options" in names}


def _is_in(name: str, names: Collection[str]) -> bool:
    """Returns whether the setting or a section that holds it is among the names."""
    return any(".".join(name.split(".")[: depth + 1]) in names for depth in range(name.count(".") + 1))


def _settings(config: dict) -> dict[str, Any]:
    """Returns every setting by its name on the command line."""
    loss = config["loss"]
    options = {loss["name"] if loss["name"] in LOSSES else "own": loss["options"]}
    return dict(_flat(config | {"loss": {k: v for k, v in loss.items() if k != "options"} | options}))


def _flat(values: dict, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def problems_digest(table: PromptTable) -> str:
    """Returns 16 hexadecimal digits that depend on every token of the prompts, and on the reference answers."""
    digest = hashlib.sha256(table.token_QP.tobytes())
    digest.update("\0".join(table.answers).encode())
    return digest.hexdigest()[:16]


def weights_digest(weights: Any) -> str:
    """Returns 16 hexadecimal digits that depend on every bit of float32 weights, and not on their layout on a mesh.

    Each tensor is summed on its devices, in integers, whose sum has no order: Σ mix(bits ⊕ mix(place)) mod 2³².
    """
    sums = jax.device_get(jax.jit(lambda tree: jax.tree.map(_checksum, tree))(weights))
    named = [f"{jax.tree_util.keystr(path)}={value}" for path, value in jax.tree_util.tree_leaves_with_path(sums)]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def _checksum(x: Array) -> Array:
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.sum(mix_bits(bits ^ mix_bits(place)), dtype=jnp.uint32)
