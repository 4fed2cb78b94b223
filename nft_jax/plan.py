"""Whether a step fits devices, and what it costs there: python -m nft_jax.plan --config=NAME --topology=v5p:4x4x4

Compiles the very step that trains, for TPU slices that nobody holds (`pip install libtpu` is enough: no TPU is needed),
or, without --topology, for the devices that are here. Nothing is run; where the config gives the model's shape, no data
and no weights are read either. Prints what the compiler found (memory, transfers) apart from what
is estimated from the chip's data sheet (seconds), under assumptions that --assume changes:

    --assume=answer=900,mixed=0.4    mean tokens of an answer, share of groups that train; the output names the others

--slices=N takes several slices (then config.mesh.replica=N, or a multiple). --search finds how many slots and rows a
micro-batch fit, in some more compilations. --json=FILE, or --workdir=DIR (then DIR/plan.json), keeps it all.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
from absl import flags

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.experiment import located, with_shape
from nft_jax.parallel.mesh import shard_count
from nft_jax.planning import hlo
from nft_jax.planning.chips import GIB, chip_of
from nft_jax.planning.cost import assumed, estimate
from nft_jax.planning.memory import bytes_a_device, slot_bytes, slots_a_shard
from nft_jax.planning.page import Plan, as_json, described
from nft_jax.planning.program import TooLarge, compiled, experiment_on
from nft_jax.planning.search import largest
from nft_jax.planning.topology import topology
from nft_jax.timing.workload import random_data

TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slice such as v5e:8x8; empty: the devices that are here.")
SLICES = flags.DEFINE_integer("slices", 1, "Slices of that topology.")
SEARCH = flags.DEFINE_bool("search", False, "Find how many slots, and rows a micro-batch, fit.")
ASSUME = flags.DEFINE_string("assume", "", "NAME=VALUE,…: what the estimate assumes.")
PROMPTS = flags.DEFINE_integer("prompts", 17_000, "Prompts in the table that lies on each device.")
JSON = flags.DEFINE_string("json", "", "File for all figures.")


def main(config: Config, workdir: Path | None) -> None:
    """Compiles, prints, and keeps the figures."""
    devices = topology(TOPOLOGY.value, SLICES.value) if TOPOLOGY.value else jax.devices()
    config = shaped(config)
    dataset = random_data(config, 1, PROMPTS.value) if config.model.vocab else None
    find = searched if SEARCH.value else planned
    try:
        found = find(config, devices, dataset, ASSUME.value)
    except TooLarge as error:
        raise ValueError(
            f"the step does not fit: it {error}\ntake fewer rollout.slots, more devices, mesh.sequence_parallel=true, "
            f"packing.rows_per_micro_batch=1, optimizer.offload=true or model.remat='full'; --search finds the slots"
        ) from error
    print(described(found, TOPOLOGY.value))
    path = Path(JSON.value) if JSON.value else workdir / "plan.json" if workdir else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(as_json(found, TOPOLOGY.value), indent=2) + "\n")
        print(f"all figures: {path}")


def shaped(config: Config) -> Config:
    """The config with the shape of its model folder, where it names one."""
    if not config.model.path:
        return config
    # What it has of settings there is all that a plan needs: one real token stands for the tokenizer's.
    return dataclasses.replace(config, model=dataclasses.replace(with_shape(located(config, Path()), 1).model, path=""))


def planned(config: Config, devices: list[jax.Device], dataset: Dataset | None, told: str = "") -> Plan:
    """The step of a config on some devices.

    Raises:
      ValueError: as `Experiment` and `assumed`.
      TooLarge: when the compiler finds that it doesn't fit.
    """
    with experiment_on(config, devices, dataset) as (experiment, optimizer):
        given = assumed(told, experiment)
        program, held = compiled(experiment, optimizer), bytes_a_device(experiment, optimizer)
    chip = chip_of(devices[0].device_kind)
    transfers = hlo.collectives(program.text, dict(experiment.mesh.shape)) if program.text else []
    estimated = None if chip is None else estimate(experiment, chip, held, transfers, given)
    return Plan(experiment, chip, held, slots_a_shard(experiment), program, transfers, given, estimated)


def searched(config: Config, devices: list[jax.Device], dataset: Dataset | None, told: str = "") -> Plan:
    """The step with as many slots, and then as many rows a micro-batch (doubled each time), as fit.

    Raises:
      ValueError: when the devices' limit isn't known, or when nothing fits.
    """
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise ValueError(f"--search: the memory of {devices[0].device_kind!r} isn't known; give a --topology")

    rows, plans = config.packing.rows_per_micro_batch, {}

    def needs(slots: int, rows: int = rows) -> int:
        try:
            plans[slots, rows] = planned(sized(config, slots, rows), devices, dataset, told)
            bytes_ = plans[slots, rows].program.peak
        except TooLarge as error:
            bytes_ = error.bytes
        print(f"  {slots} slots, {rows} rows a micro-batch: {bytes_ / GIB:.2f} GiB", file=sys.stderr, flush=True)
        return bytes_

    with experiment_on(config, devices, dataset) as (experiment, _):
        first, each = slots_a_shard(experiment), slot_bytes(experiment)
        most = config.candidates_per_round * config.answers_per_prompt // shard_count(experiment.mesh)
    slots = largest(needs, int(chip.memory), first, most, each)
    if not slots:
        raise ValueError(f"no number of slots fits {chip.memory / GIB:.2f} GiB a device; take more devices")
    while needs(slots, 2 * rows) <= chip.memory:
        rows *= 2
    return plans[slots, rows]


def sized(config: Config, slots: int, rows: int) -> Config:
    """The config with so many slots, and rows a micro-batch."""
    return dataclasses.replace(
        config,
        rollout=dataclasses.replace(config.rollout, slots=slots),
        packing=dataclasses.replace(config.packing, rows_per_micro_batch=rows),
    )


if __name__ == "__main__":
    cli.run(main, __doc__, needs_workdir=False)
