"""Plans of a step on some devices: one, or the largest that fits."""

import dataclasses
import sys
from pathlib import Path

import jax

from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.experiment import located, with_shape
from nft_jax.machine.chips import GIB, chip_of
from nft_jax.machine.memory import bytes_a_device, slot_bytes, slots_a_shard
from nft_jax.parallel.mesh import shard_count
from nft_jax.plan import hlo
from nft_jax.plan.cost import assumed, estimate
from nft_jax.plan.page import Plan
from nft_jax.plan.program import TooLarge, compiled, experiment_on
from nft_jax.plan.search import largest


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
