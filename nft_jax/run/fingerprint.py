"""What makes two runs the same run: the settings, problems and weights that decide its numbers."""

import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.config import Config, resolved
from nft_jax.data.order import mix_bits
from nft_jax.data.prompts import PromptTable
from nft_jax.losses import LOSSES
from nft_jax.types import Array

# A run may go on with other values of these: they decide where, how fast and how often, or mattered at its start only.
FREE = (
    "base",
    "model.path",
    "model.remat",
    "model.unrolled_layers",
    "model.attention",
    "data.train",
    "data.validation",
    "data.test",
    "data.tokenizer",
    "data.folder",
    "data.hygiene",
    "data.exclude",
    "optimizer.offload",
    "rollout.lockstep",
    "rollout.slots",
    "rollout.max_halvings",
    "packing",
    "mesh",
    "verify.second_grader",
    "verify.answers_per_submission",
    "verify.isolation",
    "verify.workers",
    "verify.seconds_per_answer",
    "verify.seconds_per_round",
    "verify.worker_memory_mib",
    "warm_start",
    "evaluation.every_steps",
    "evaluation.problems_per_batch",
    "record",
    "compare",
)
# What the weights after a warm start depend on.
WARM_START = ("seed", "model", "data", "warm_start", "rollout.max_answer_tokens")


def make_fingerprint(config: Config, tables: dict[str, PromptTable]) -> dict:
    """What a checkpoint keeps of its run: every setting, and a digest of each split's tokenised prompts and answers."""
    return {"config": resolved(config), "problems": {name: problems_digest(table) for name, table in tables.items()}}


def check_same(saved: dict, given: dict, where: Any, deciding: tuple[str, ...] = ()) -> None:
    """Checks that a run may go on as `given` from what it was when `saved` (both from `identity`).

    `deciding` names the sections that matter; by default all do but `FREE`.

    Raises:
      ValueError: with both values of everything that differs.
    """
    before, now = _settings(saved["config"]), _settings(given["config"])
    # What only one of two versions has says nothing; what only one of two runs gives a loss of one's own does.
    alike = "loss.own." if before["loss.name"] == now["loss.name"] else ()
    known = [name for name in before | now if (name in before and name in now) or name.startswith(alike)]
    faults = [
        f"config.{name}: the run has {before.get(name)!r}, given {now.get(name)!r}"
        for name in known
        if before.get(name) != now.get(name) and _decides(name, given["config"], deciding)
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


def _settings(config: dict) -> dict[str, Any]:
    """Every setting by the name it has on the command line."""
    loss = config["loss"]
    options = {loss["name"] if loss["name"] in LOSSES else "own": loss["options"]}
    return dict(_flat(config | {"loss": {k: v for k, v in loss.items() if k != "options"} | options}))


def _flat(values: dict, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _decides(name: str, config: dict, deciding: tuple[str, ...]) -> bool:
    def within(sections):
        return any(name == section or name.startswith(f"{section}.") for section in sections)

    if deciding:
        # Paths are free everywhere: the problems themselves are compared.
        return within(deciding) and (name.startswith("warm_start.") or not within(FREE))
    if name == "steps":
        # A schedule that decays to the last step depends on which it is.
        return config["optimizer"]["schedule"] != "constant"
    return not within(FREE)


def problems_digest(table: PromptTable) -> str:
    """16 hexadecimal digits that depend on every token of the prompts, and on the answers."""
    digest = hashlib.sha256(table.token_NP.tobytes())
    digest.update("\0".join(table.answers).encode())
    return digest.hexdigest()[:16]


def weights_digest(weights: Any) -> str:
    """16 hexadecimal digits that depend on every bit of float32 weights, and not on how they lie on a mesh.

    Each tensor is summed up where it lies, in integers, whose sum has no order: Σ mixed(bits ⊕ mixed(place)) mod 2³².
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
