"""What a plan found, on a page: what the compiler said, and apart from it what is estimated."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.config import resolved
from nft_jax.experiment import Experiment
from nft_jax.machine.chips import GIB, Chip
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import SHARDS, TENSOR, describe_mesh
from nft_jax.plan import hlo
from nft_jax.plan.cost import DAY, Assumptions, Estimate
from nft_jax.plan.program import Compiled
from nft_jax.run.workdir import versions


class Plan(NamedTuple):
    """What is known of a step on some devices.

    `held`, `slots`   from `planning.memory`           `program`    what the compiler says
    `transfers`       of the program's text            `estimated`  None for a chip without a data sheet
    """

    experiment: Experiment
    chip: Chip | None
    held: dict[str, int]
    slots: int
    program: Compiled
    transfers: list[hlo.Collective]
    assumptions: Assumptions
    estimated: Estimate | None

    def moved(self, phase: str) -> list[hlo.Collective]:
        """The transfers of a phase."""
        return hlo.of_phase(self.transfers, phase)


def described(plan: Plan, where: str) -> str:
    """A page for a person."""
    return "\n".join([*_facts(plan, where), *_warnings(plan), "", *_estimates(plan)])


def _facts(plan: Plan, where: str) -> Iterator[str]:
    experiment, program = plan.experiment, plan.program
    config, model = experiment.config, experiment.model
    device = model.mesh.devices.flat[0]
    room = f" of {_held(plan.chip.memory)}, {_held(plan.chip.memory - program.peak)} free" if plan.chip else ""
    yield f"{where or device.platform}: {model.mesh.size} × {device.device_kind}, mesh {describe_mesh(model.mesh)}"
    yield (
        f"{model.parameters:,} weights; {config.prompts_per_step} prompts × {config.answers_per_prompt} answers "
        f"of up to {config.rollout.max_answer_tokens} tokens, {config.updates_per_step} updates; attention "
        f"{model.attention.name}"
    )
    yield f"\nCompiled ({program.seconds:.0f} s), a fact: a device holds {_held(program.peak)}{room}"
    rest = program.peak - sum(plan.held.values())
    parts = plan.held | {"all else": rest}
    yield "  of which " + ", ".join(f"{name} {_held(size)}" for name, size in parts.items())
    yield f"  slots a shard {plan.slots}, rows a micro-batch {config.packing.rows_per_micro_batch}"
    if program.host:
        yield f"  besides, {_held(program.host)} of the host's memory"
    if not program.text:
        yield f"  transfers are not known: the compiler can't print this program ({program.why})"
    for phase, unit, times in _counted(plan):
        if found := plan.moved(phase):
            yield f"  {unit}: {_sum(found, times)}"


def _counted(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Phases with transfers: what is counted, and how often the program's text has it."""
    U = plan.experiment.config.updates_per_step
    yield scopes.SAMPLING_WEIGHTS, "the sampler's weights move, a device", 1
    yield scopes.DECODE, "a decoded token moves, a slot", plan.slots
    yield scopes.MICRO_BATCH, "a micro-batch moves, a device", U
    yield scopes.OPTIMIZER, "an update moves besides, a device", U


def _sum(found, times):
    kinds: Counter[tuple[str, str]] = Counter()
    for one in found:
        kinds[one.kind, " and ".join(sorted(one.axes)) or "nothing"] += one.bytes * one.times
    words = [f"{kind} over {axes} {_bytes(size / times)}" for (kind, axes), size in sorted(kinds.items())]
    return f"{_bytes(kinds.total() / times)} ({', '.join(words)})"


def _held(size):
    return f"{size / GIB:.2f} GiB" if abs(size) >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _bytes(size):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 100 * scale else f"{size / scale:.0f} {unit}"
    return f"{size:.0f} B"


def _warnings(plan: Plan) -> Iterator[str]:
    """What a decode loop should not do."""
    smallest = smallest_matrix(plan.experiment)
    for one in plan.moved(scopes.DECODE):
        if one.kind == "all-gather" and one.bytes >= smallest:
            yield f"WARNING: a weight is gathered at every token: {_bytes(one.bytes)} by {one.scope}"
        if one.axes & {*SHARDS}:
            yield f"WARNING: something crosses {', '.join(one.axes)} at every token: {_bytes(one.bytes)} by {one.scope}"
    for copied in copies(plan.program.text, plan.held["cache"] // plan.experiment.config.model.layers // 2):
        yield f"WARNING: a cache is copied at every token: {copied}"


def smallest_matrix(experiment: Experiment) -> int:
    """Bytes of the smallest matrix of a layer, a device's part of it over `tensor`, in the compute dtype."""
    config = experiment.config.model
    size = jnp.dtype(config.dtype).itemsize
    layers = jax.tree.leaves(experiment.model.abstract["blocks"])
    return (
        min(leaf.size // config.layers * size for leaf in layers if leaf.ndim > 2)
        // experiment.model.mesh.shape[TENSOR]
    )


def copies(text: str, least: int) -> list[str]:
    """Scopes of the copies of at least so many bytes in the decode loop, but for those into a TPU's fast memory.

    Such a one, whose result has `S(1)` in its layout, is how what is small is read ahead.
    """
    if not text:
        return []
    return [
        one.scope
        for one in hlo.instructions(text)
        if hlo.operation(one.line) in ("copy", "copy-start")
        and "S(1)" not in one.line.split(" copy")[0]
        and scopes.is_within(scopes.DECODE, one.scope)
        and hlo.result_bytes(one.line) >= least
    ]


def _estimates(plan: Plan) -> Iterator[str]:
    if plan.estimated is None:
        device = plan.experiment.model.mesh.devices.flat[0]
        yield f"Nothing is estimated: {device.device_kind!r} has no data sheet here (nft_jax/machine/chips.py)"
        return
    found, config = plan.estimated, plan.experiment.config
    yield f"Estimated, not measured (data sheet: {plan.chip.source}), assuming " + ", ".join(
        f"{name} {value:g}" for name, value in plan.assumptions._asdict().items()
    )
    yield (
        f"  a step {found.step:,.0f} s = prompts {found.read:,.0f} + decoding {found.decode:,.0f} ({found.trips:,.0f} "
        f"tokens a slot, {1e3 * found.decode / found.trips:.1f} ms each) + updates {found.update:,.0f} "
        f"({found.micro_batches} micro-batches each)"
    )
    yield "  PFLOP: " + ", ".join(f"{name} {flops / 1e15:,.2f}" for name, flops in found.flops.items())
    yield (
        f"  {found.rounds} rounds; samples {found.sampled:,.0f} tokens and trains on {found.trained:,.0f}: "
        f"{found.sampled * DAY / found.step / 1e9:.2f} billion tokens a day; {config.steps} steps take "
        f"{config.steps * found.step / 3600:,.0f} hours"
    )
    grace = config.record.grace_seconds
    yield (
        f"  asked to stop, a run waits {grace:g} s for the running step (config.record.grace_seconds), "
        + ("which saves it" if grace >= found.step else "which loses it: the step begins anew")
    )


def as_json(plan: Plan, where: str) -> dict[str, Any]:
    """All figures."""
    experiment, program = plan.experiment, plan.program
    return {
        "command": sys.argv,
        "topology": where,
        "mesh": dict(experiment.model.mesh.shape),
        "versions": versions(),
        "chip": plan.chip._asdict() if plan.chip else None,
        "parameters": experiment.model.parameters,
        "slots": plan.slots,
        "bytes": plan.held | {"peak": program.peak, "arguments": program.arguments, "host": program.host},
        "compile_seconds": program.seconds,
        "transfers": {
            phase: [one._replace(axes=sorted(one.axes))._asdict() for one in plan.moved(phase)]
            for phase, _, _ in _counted(plan)
        },
        "assumptions": plan.assumptions._asdict(),
        "estimated": plan.estimated._asdict() | {"step": plan.estimated.step} if plan.estimated else None,
        "config": resolved(experiment.config),
    }
