"""Plans of a step on some devices: one, or the largest that fits."""

import dataclasses
import sys
from pathlib import Path

import jax

from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.machine.chips import GIB, chip_of
from nft_jax.machine.memory import device_bytes, slot_bytes, slots_per_shard
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import shard_count
from nft_jax.plan import hlo
from nft_jax.plan.cost import estimate, read_assumptions
from nft_jax.plan.page import Plan
from nft_jax.plan.program import TooLarge, analyze_step, build_planned_experiment
from nft_jax.plan.search import largest_fit
from nft_jax.resolve import resolve_model


def fill_model_shape(config: Config) -> Config:
    """Returns the config with the shape of its model folder, if it names one, in place of the folder."""
    if not config.model.path:
        return config
    # The plan uses random prompts, so that a single token stands for the tokenizer's.
    model = resolve_model(config, Path(), 1).model
    return dataclasses.replace(config, model=dataclasses.replace(model, path=""))


def plan_step(config: Config, devices: list[jax.Device], dataset: Dataset | None, assumptions: str = "") -> Plan:
    """Plans the step of a config on some devices.

    Args:
      devices: Devices, present or not.
      dataset: Prompts, in place of the config's data.
      assumptions: What the estimate assumes, as `--assume` has it.

    Raises:
      FileNotFoundError, ValueError: As `build_experiment`; for assumptions that do not exist.
      TooLarge: When the compiler finds that it does not fit.
    """
    experiment = build_planned_experiment(config, devices, dataset)
    parsed = read_assumptions(assumptions, experiment)
    program, held = analyze_step(experiment), device_bytes(experiment)
    chip = chip_of(devices[0].device_kind)
    transfers = hlo.collectives(program.text, dict(experiment.model.mesh.shape)) if program.text else []
    on_gpu = devices[0].platform == "gpu" and program.text
    kernels = hlo.count_launches(program.text, scopes.DECODE) if on_gpu else 0
    estimated = None if chip is None else estimate(experiment, chip, held, transfers, parsed, kernels)
    return Plan(experiment, chip, held, slots_per_shard(experiment), program, transfers, kernels, parsed, estimated)


def search_plan(config: Config, devices: list[jax.Device], dataset: Dataset | None, assumptions: str = "") -> Plan:
    """Plans the step with as many slots as fit, and then with as many rows per micro-batch (doubled each time).

    Raises:
      ValueError: When the devices' memory is not known, or when nothing fits.
    """
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise ValueError(f"--search: the memory of {devices[0].device_kind!r} is not known; give a --topology")

    experiment = build_planned_experiment(config, devices, dataset)
    rows, plans = experiment.config.packing.rows_per_micro_batch, {}

    def needed_bytes(slots: int, rows: int = rows) -> int:
        try:
            plans[slots, rows] = plan_step(with_sizes(config, slots, rows), devices, dataset, assumptions)
            needed = plans[slots, rows].program.peak
        except TooLarge as error:
            needed = error.bytes
        print(f"  {slots} slots, {rows} rows a micro-batch: {needed / GIB:.2f} GiB", file=sys.stderr, flush=True)
        return needed

    first, each = slots_per_shard(experiment), slot_bytes(experiment)
    answers = config.candidates_per_round * config.answers_per_prompt // shard_count(experiment.model.mesh)
    most = answers * (1 + config.rollout.rounds_ahead)
    slots = largest_fit(needed_bytes, int(chip.memory), first, most, each)
    if not slots:
        raise ValueError(f"no number of slots fits {chip.memory / GIB:.2f} GiB a device; take more devices")
    while needed_bytes(slots, 2 * rows) <= chip.memory:
        rows *= 2
    return plans[slots, rows]


def with_sizes(config: Config, slots: int, rows: int) -> Config:
    """Returns the config with these numbers of slots, and of rows per micro-batch."""
    return dataclasses.replace(
        config,
        rollout=dataclasses.replace(config.rollout, slots=slots),
        packing=dataclasses.replace(config.packing, rows_per_micro_batch=rows),
    )
