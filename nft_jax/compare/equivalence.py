"""The equivalence lab: gradients of NFT against its peers' on a real model's rollout, on-policy and as it drifts."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compare import equalities, equivalence_figures, multipliers
from nft_jax.compare.equivalence_page import described, drift_table, on_policy_table, rollout_line, rounded
from nft_jax.compare.gradients import Difference, Gradients, Sampled, difference, sample, told
from nft_jax.config import Config, LossConfig, MeshConfig, resolved
from nft_jax.experiment import Experiment, open_experiment
from nft_jax.losses import resolve
from nft_jax.losses.kl import k3
from nft_jax.parallel.mesh import make_mesh
from nft_jax.resolve import check_sizes
from nft_jax.run.workdir import Workdir, provenance
from nft_jax.sft import warm_start
from nft_jax.update.optimizer import make_optimizer

DEVICES = 8
# Beyond these, gradients of the same objective differ by more than the rounding of their sums.
ROUNDING = {"float64": 1e-12, "float32": 1e-5}


class Pair(NamedTuple):
    """Two losses whose gradients are compared."""

    mine: LossConfig
    peer: LossConfig


def nft(normalizer: str, **options: Any) -> LossConfig:
    """NFT with this normaliser and these options."""
    return LossConfig(name="nft", normalizer=normalizer, options=options)


GRPO, DR_GRPO, RFT = (LossConfig(name=name) for name in ("grpo", "dr_grpo", "rft"))
LIKE_GRPO, LIKE_DR_GRPO = nft("sequence_mean", omega="sqrt_odds"), nft("constant", omega="one_minus_rate")
LIKE_RFT = nft("constant", omega="one", negative_weight=0.0)
# The first three are equal on-policy, the third at any R; the last two never are.
PAIRS = (
    Pair(LIKE_GRPO, GRPO),
    Pair(LIKE_DR_GRPO, DR_GRPO),
    Pair(LIKE_RFT, RFT),
    Pair(LIKE_GRPO, DR_GRPO),
    Pair(LIKE_DR_GRPO, GRPO),
)
LOSSES = (LIKE_GRPO, GRPO, LIKE_DR_GRPO, DR_GRPO, LIKE_RFT, RFT)


class Compared(NamedTuple):
    """Two gradients: the largest difference and the smallest cosine of all parameters, and those of each by name."""

    mine: str
    peer: str
    precision: str
    devices: int
    relative: float
    cosine: float
    parameters: dict[str, Difference]

    @property
    def equal(self) -> bool:
        """To the rounding of the precision."""
        return self.relative <= ROUNDING[self.precision]


class Drifted(NamedTuple):
    """After `update` updates on the rollout; over its tokens, and by pair (as in `names`) or loss.

    `log_ratio`  mean |log R|     `kl`  mean of R − 1 − log R     `ratio_max`  the largest R
    `cosine`     of the gradient by all parameters     `worst_cosine`  the smallest of a parameter
    `stopped`    by loss, the share of the tokens that it trains at R = 1 and whose gradient is now exactly 0
    """

    update: int
    log_ratio: float
    kl: float
    ratio_max: float
    cosine: dict[str, float]
    worst_cosine: dict[str, float]
    stopped: dict[str, float]


def names(pair: Pair) -> str:
    """A pair in words."""
    return f"{told(pair.mine)} against {told(pair.peer)}"


def compared(mine: str, peer: str, lab: Gradients, one: dict[str, Any], other: dict[str, Any]) -> Compared:
    """Two gradients of a lab, parameter by parameter."""
    each = {name: difference(one[name], other[name]) for name in other}
    largest, smallest = max(d.relative for d in each.values()), min(d.cosine for d in each.values())
    return Compared(mine, peer, lab.dtype, lab.mesh.size, largest, smallest, each)


def on_policy(lab: Gradients, weights: Any, pairs: Sequence[Pair] = PAIRS) -> list[Compared]:
    """The pairs' gradients as if `weights` had sampled, R being exactly 1."""
    gradients = {told(loss): lab(loss, weights, on_policy=True) for pair in pairs for loss in pair}
    return [compared(told(mine), told(peer), lab, gradients[told(mine)], gradients[told(peer)]) for mine, peer in pairs]


def across(lab: Gradients, alone: Gradients, weights: Any, losses: Sequence[LossConfig] = LOSSES) -> list[Compared]:
    """The gradient of each loss on the devices of `lab` against that on those of `alone`."""
    both = [(told(loss), *(each(loss, weights, on_policy=True) for each in (lab, alone))) for loss in losses]
    return [compared(name, f"on {alone.mesh.size} device", lab, one, other) for name, one, other in both]


def drift(lab: Gradients, weights: Any, pairs: Sequence[Pair] = PAIRS) -> list[Drifted]:
    """The pairs' gradients on the whole rollout before the config's updates on it, and after 1, 2, 4, … and all."""
    last = lab.experiment.config.updates_per_step
    return [
        drifted(lab, moved, update, pairs)
        for update, moved in enumerate(updated(lab.experiment, lab.sampled, weights))
        if update.bit_count() < 2 or update == last
    ]


def drifted(lab: Gradients, weights: Any, update: int, pairs: Sequence[Pair]) -> Drifted:
    """The pairs' gradients by weights that are so many updates away from those that sampled."""
    losses = {told(loss): loss for pair in pairs for loss in pair}
    gradients = {name: lab(loss, weights, on_policy=False) for name, loss in losses.items()}
    cosine, worst = {}, {}
    for pair in pairs:
        one, other = gradients[told(pair.mine)], gradients[told(pair.peer)]
        whole = difference(*(np.concatenate([x[name].ravel() for name in other]) for x in (one, other)))
        cosine[names(pair)] = whole.cosine
        worst[names(pair)] = min(difference(one[name], other[name]).cosine for name in other)
    logp_BT, batches = lab.logp(weights), {name: lab.batch(loss) for name, loss in losses.items()}
    stopped = {
        name: multipliers.stopped(resolve(loss.name, loss.options), logp_BT, batches[name])
        for name, loss in losses.items()
    }
    _, batch = batches.popitem()
    answer_BT, old_logp_BT = batch.answer_BT, batch.old_logp_BT
    log_ratio = (logp_BT - old_logp_BT)[answer_BT >= 0]
    kl = np.asarray(k3(old_logp_BT, logp_BT, answer_BT))[answer_BT >= 0]
    moments = float(np.abs(log_ratio).mean()), float(kl.mean()), float(np.exp(log_ratio.max()))
    return Drifted(update, *moments, cosine, worst, stopped)


def updated(experiment: Experiment, sampled: Sampled, weights: Any) -> Iterator[Any]:
    """The weights before the updates that the config's loss takes on one rollout, and after each."""
    config = experiment.config
    optimizer = make_optimizer(config.optimizer, config.updates_per_step, experiment.model.axes)
    step = experiment.step(optimizer)
    weights = experiment.place(weights, experiment.model.weight_specs)
    state = jax.jit(optimizer.init)(weights)
    packed, totals = jax.jit(step.pack)(sampled.groups, np.int32(sampled.count), sampled.prompts, np.int32(0))

    @jax.jit
    def program(weights, state, packed, totals):
        with jax.default_matmul_precision(config.model.precision):
            return step.updater(weights, state, packed, totals, None, jnp.bool_(False))[:2]

    yield jax.device_get(weights)
    for update in range(config.updates_per_step):
        weights, state = program(weights, state, *jax.tree.map(lambda x, i=update: x[i], (packed, totals)))
        yield jax.device_get(weights)


def starting_weights(experiment: Experiment, workdir: Path) -> Any:
    """Those after a warm start, where the config has one; on the host."""
    if experiment.config.base or not experiment.config.warm_start.steps:
        return jax.device_get(experiment.starting_weights())
    return jax.device_get(warm_start(experiment, Workdir(workdir / "warm_start")))


def run(config: Config, workdir: Path) -> None:
    """The whole lab: samples, compares, draws, and writes all figures into `workdir`.

    Raises ValueError for sizes that don't divide over the devices, and where no group of the rollout is mixed.
    """
    began = time.perf_counter()
    # Read when JAX first looks for devices; other platforms have those that they have.
    jax.config.update("jax_num_cpu_devices", DEVICES)
    folder = Workdir(workdir)
    devices, mesh = jax.devices()[:DEVICES], config.mesh
    meshes = [make_mesh(1, 1, devices[:1])]
    if len(devices) > 1:
        meshes.append(make_mesh(mesh.data, mesh.tensor, devices, mesh.replica))
    with open_experiment(dataclasses.replace(config, mesh=MeshConfig()), workdir, devices[:1]) as experiment:
        check_sizes(experiment.config, experiment.loss, meshes[-1])
        weights = starting_weights(experiment, workdir)
        sampled = sample(experiment, weights)
        print(rollout_line(described(sampled)), flush=True)
        found = []
        for dtype in ROUNDING:
            labs = [Gradients(experiment, sampled, mesh, LOSSES, dtype) for mesh in meshes]
            for lab in labs:
                found += on_policy(lab, weights)
                print(f"  {dtype} on {lab.mesh.size}: {time.perf_counter() - began:.0f} s", flush=True)
            for lab in labs[1:]:
                found += across(lab, labs[0], weights)
        print(on_policy_table(found), flush=True)
        points = drift(labs[0], weights)  # in the last of the precisions, that of real runs
        print(drift_table(points), flush=True)
    table, curves = equalities.table(), multipliers.curves(multipliers.nft_beside_grpo())
    result = {
        "run": provenance(config, experiment.model.attention.name) | {"seconds": time.perf_counter() - began},
        "config": resolved(config),
        "rollout": described(sampled),
        "on_policy": [each._asdict() for each in found],
        "drift": [each._asdict() for each in points],
        "equalities": [each._asdict() for each in table],
    }
    folder.write("equivalence.json", rounded(result))
    (workdir / "equalities.md").write_text(equalities.markdown(table) + "\n", encoding="utf-8")
    equivalence_figures.draw(found, points, workdir)
    equivalence_figures.draw_multipliers(curves, workdir)
    seconds = result["run"]["seconds"]
    print(f"{seconds:.0f} s; in {workdir}: equivalence.json, equivalence.png, multipliers.png, equalities.md")
