"""A plan as a page and as JSON; facts of the compiler are kept apart from estimates."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nft_jax import cli
from nft_jax.config import to_dict
from nft_jax.experiment import Experiment
from nft_jax.machine.chips import GIB, Chip
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import SHARDS, TENSOR, describe_mesh
from nft_jax.plan import hlo
from nft_jax.plan.cost import DAY, Assumptions, Estimate
from nft_jax.plan.program import Compiled
from nft_jax.run.workdir import versions


class Plan(NamedTuple):
    """A step on some devices.

    Attributes:
      chip: the devices' data sheet, or None.
      held: bytes of a device by item, from `machine.memory`.
      slots: answers that a data shard decodes at a time.
      program: the compiler's facts.
      transfers: transfers between devices, from the program's text.
      kernels: that a decoded token starts on a GPU; 0 on other devices.
      estimate: the estimated step; None without a data sheet.
    """

    experiment: Experiment
    chip: Chip | None
    held: dict[str, int]
    slots: int
    program: Compiled
    transfers: list[hlo.Collective]
    kernels: int
    assumptions: Assumptions
    estimate: Estimate | None

    def phase_transfers(self, phase: str) -> list[hlo.Collective]:
        """Returns the transfers of a phase."""
        return hlo.select_phase(self.transfers, phase)


def format_page(plan: Plan, where: str) -> str:
    """Makes the page that `python -m nft_jax.plan` prints; `where` names the topology."""
    return "\n".join([*_facts(plan, where), *_warnings(plan), "", *_estimates(plan)])


def _facts(plan: Plan, where: str) -> Iterator[str]:
    """Yields the compiler's facts."""
    experiment, program = plan.experiment, plan.program
    config, model = experiment.config, experiment.model
    device = model.mesh.devices.flat[0]
    room = f" of {_gib(plan.chip.memory)}, {_gib(plan.chip.memory - program.peak)} free" if plan.chip else ""
    yield f"{where or device.platform}: {model.mesh.size} × {device.device_kind}, mesh {describe_mesh(model.mesh)}"
    yield (
        f"{model.parameters:,} weights; {config.prompts_per_step} prompts × {config.answers_per_prompt} answers "
        f"of up to {config.rollout.max_answer_tokens} tokens, {config.updates_per_step} updates; attention "
        f"{model.attention.name}"
    )
    compiled = f"Compiled by {program.compiler} ({program.seconds:.0f} s), a fact"
    yield f"\n{compiled}: a device holds {_gib(program.peak)}{room}"
    rest = program.peak - sum(plan.held.values())
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in plan.held.items())
    yield f"  of which {parts}, " + (f"all else {_gib(rest)}" if rest >= 0 else f"less {_gib(-rest)} that they share")
    yield f"  slots a shard {plan.slots}, rows a micro-batch {config.packing.rows_per_micro_batch}"
    if program.host:
        yield f"  besides, {_gib(program.host)} of the host's memory"
    if not program.text:
        yield f"  transfers are not known: the compiler can't print this program ({program.why})"
    if plan.kernels:
        layers, unrolled = config.model.layers, config.model.unrolled_layers
        copying = f", which copy its weights: set config.model.unrolled_layers={layers}" if unrolled < layers else ""
        yield f"  a decoded token starts {plan.kernels} kernels, {plan.kernels / layers:.1f} for each layer{copying}"
    for phase, unit, times in _counted_phases(plan):
        if transfers := plan.phase_transfers(phase):
            yield f"  {unit}: {_sum_transfers(transfers, times)}"


def _counted_phases(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Yields the phases with transfers, what is counted, and how often the program's text contains it."""
    U = plan.experiment.config.updates_per_step
    yield scopes.SAMPLING_WEIGHTS, "the sampler's weights move, a device", 1
    yield scopes.DECODE, "a decoded token moves, a slot", plan.slots
    yield scopes.MICRO_BATCH, "a micro-batch moves, a device", U
    yield scopes.PROMPT_BATCH, "a batch of shared prompts moves, a device", U
    yield scopes.OPTIMIZER, "an update moves besides, a device", U


def _sum_transfers(transfers, times):
    kinds: Counter[tuple[str, str]] = Counter()
    for one in transfers:
        kinds[one.kind, " and ".join(sorted(one.axes)) or "nothing"] += one.bytes * one.times
    words = [f"{kind} over {axes} {_bytes(size / times)}" for (kind, axes), size in sorted(kinds.items())]
    return f"{_bytes(kinds.total() / times)} ({', '.join(words)})"


def _gib(size):
    return f"{size / GIB:.2f} GiB" if abs(size) >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _seconds(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _bytes(size):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 100 * scale else f"{size / scale:.0f} {unit}"
    return f"{size:.0f} B"


def _warnings(plan: Plan) -> Iterator[str]:
    """Yields a line for each thing that a decode loop should not do."""
    smallest = smallest_matrix(plan.experiment)
    for one in plan.phase_transfers(scopes.DECODE):
        size = f"{_bytes(one.bytes)} by {one.scope}"
        if one.kind == "all-gather" and one.bytes >= smallest:
            yield f"WARNING: a weight is gathered at every token: {size}"
        if one.axes & {*SHARDS}:
            yield f"WARNING: a transfer crosses {', '.join(one.axes)} at every token: {size}"
    for scope in find_copies(plan.program.text, plan.held["cache"] // plan.experiment.config.model.layers // 2):
        yield f"WARNING: a cache is copied at every token: {scope}"


def smallest_matrix(experiment: Experiment) -> int:
    """Returns the bytes of a layer's smallest matrix, split over `tensor`, in the sampler's format."""
    config, formats = experiment.config.model, (experiment.config.rollout.weights, experiment.config.lora.base)
    size = jnp.dtype("int8" if "int8" in formats else config.dtype).itemsize
    layers = jax.tree.leaves(experiment.model.base.shapes["blocks"])
    smallest = min(leaf.size for leaf in layers if leaf.ndim > 2) // config.layers
    return smallest * size // experiment.model.mesh.shape[TENSOR]


def find_copies(text: str, least: int) -> list[str]:
    """Returns the scopes of the copies of at least `least` bytes in the decode loop.

    Copies that a compiler adds, such as those to another layout, may have no scope of their own: a copy counts if
    instructions of the phase are beside it, and its scope is not in another phase. Copies into a TPU's fast memory
    (`S(1)` in the layout of the result) prefetch small arrays, and do not count.
    """
    looped = [one for one in hlo.instructions(text) if one.looped] if text else []
    decoding = {one.within for one in looped if scopes.is_within(scopes.DECODE, one.scope)}
    return [
        one.scope
        for one in looped
        if hlo.operation(one.line) in ("copy", "copy-start")
        and "S(1)" not in one.line.split(" copy")[0]
        and one.within in decoding
        and not any(scopes.is_within(phase, one.scope) for phase in scopes.OUTSIDE_DECODE)
        and hlo.result_bytes(one.line) >= least
    ]


def _estimates(plan: Plan) -> Iterator[str]:
    """Yields the estimates."""
    if plan.estimate is None:
        device = plan.experiment.model.mesh.devices.flat[0]
        yield f"No estimate: nft_jax/machine/chips.py has no data sheet of {device.device_kind!r}"
        return
    estimate, config = plan.estimate, plan.experiment.config
    batches = f"{estimate.micro_batches} micro-batches" + (
        f" and {estimate.prompt_batches} of shared prompts" if config.prompts_are_shared else ""
    )
    yield f"Estimated, not measured (data sheet: {plan.chip.source}), assuming " + ", ".join(
        f"{name} {value:g}" for name, value in plan.assumptions._asdict().items()
    )
    step, read, decode, update = map(_seconds, (estimate.step, estimate.read, estimate.decode, estimate.update))
    yield (
        f"  a step {step} s = prompts {read} + decoding {decode} "
        f"({estimate.trips:,.0f} tokens a slot, {1e3 * estimate.decode / estimate.trips:.1f} ms each) + "
        f"updates {update} ({batches} each)"
    )
    yield "  PFLOP: " + ", ".join(f"{name} {flops / 1e15:,.2f}" for name, flops in estimate.flops.items())
    yield (
        f"  {estimate.rounds} rounds; samples {estimate.sampled:,.0f} tokens and trains on {estimate.trained:,.0f}: "
        f"{estimate.sampled * DAY / estimate.step / 1e9:.2f} billion tokens a day; {config.steps} steps take "
        f"{config.steps * estimate.step / 3600:,.0f} hours"
    )
    grace = config.record.grace_seconds
    yield (
        f"  a run that must stop waits {grace:g} s for the running step (config.record.grace_seconds), "
        + ("long enough to save it" if grace >= estimate.step else "too short to save it: the step starts again")
    )


def as_json(plan: Plan, where: str) -> dict[str, Any]:
    """Returns all figures."""
    experiment, program = plan.experiment, plan.program
    return {
        "command": [sys.argv[0], *cli.given_words()],
        "topology": where,
        "mesh": dict(experiment.model.mesh.shape),
        "versions": versions(),
        "chip": plan.chip._asdict() if plan.chip else None,
        "parameters": experiment.model.parameters,
        "slots": plan.slots,
        "bytes": plan.held | {"peak": program.peak, "arguments": program.arguments, "host": program.host},
        "compile_seconds": program.seconds,
        "kernels_of_a_decoded_token": plan.kernels,
        "transfers": {
            phase: [one._replace(axes=sorted(one.axes))._asdict() for one in plan.phase_transfers(phase)]
            for phase, _, _ in _counted_phases(plan)
        },
        "assumptions": plan.assumptions._asdict(),
        "estimate": plan.estimate._asdict() | {"step": plan.estimate.step} if plan.estimate else None,
        "config": to_dict(experiment.config),
    }
