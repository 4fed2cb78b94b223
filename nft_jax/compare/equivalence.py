"""The equivalence lab: compares gradients of NFT and its peers on a real rollout, on-policy and under drift."""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compare import equalities, equivalence_report, matrix, multipliers
from nft_jax.compare.equivalence_report import drift_table, on_policy_table, rollout_figures, rollout_line
from nft_jax.compare.gradients import Difference, Gradients, RolloutBuffer, compare_arrays, label_loss, sample_buffer
from nft_jax.config import Config, LossConfig, MeshConfig, to_dict
from nft_jax.experiment import Experiment, open_experiment
from nft_jax.files import json_text
from nft_jax.losses import resolve
from nft_jax.losses.kl import k3
from nft_jax.parallel.mesh import make_mesh
from nft_jax.resolve import check_sizes
from nft_jax.run.workdir import WARM_START_FOLDER, Workdir, provenance
from nft_jax.sft import warm_start
from nft_jax.update.optimizer import make_optimizer

DEVICES = 8
# Larger relative differences come from different objectives, not from the rounding of sums.
ROUNDING = {"float64": 1e-12, "float32": 1e-5}


class Pair(NamedTuple):
    """Two losses whose gradients are compared."""

    mine: LossConfig
    peer: LossConfig

    @property
    def label(self) -> str:
        """Both losses in words."""
        return f"{label_loss(self.mine)} against {label_loss(self.peer)}"


def make_nft(normalizer: str, **options: Any) -> LossConfig:
    """Makes NFT with this normalizer and these options."""
    return LossConfig(name="nft", normalizer=normalizer, options=options)


GRPO, DR_GRPO, RFT = (LossConfig(name=name) for name in ("grpo", "dr_grpo", "rft"))
LIKE_GRPO, LIKE_DR_GRPO = make_nft("sequence_mean", omega="sqrt_odds"), make_nft("constant", omega="one_minus_rate")
LIKE_RFT = make_nft("constant", omega="one", negative_weight=0.0)
# The first three are equal on-policy, the third at any ratio; the last two never are.
PAIRS = (
    Pair(LIKE_GRPO, GRPO),
    Pair(LIKE_DR_GRPO, DR_GRPO),
    Pair(LIKE_RFT, RFT),
    Pair(LIKE_GRPO, DR_GRPO),
    Pair(LIKE_DR_GRPO, GRPO),
)
LOSSES = (LIKE_GRPO, GRPO, LIKE_DR_GRPO, DR_GRPO, LIKE_RFT, RFT)


class Comparison(NamedTuple):
    """The comparison of two gradients.

    Attributes:
      mine: label of the first loss.
      peer: label of the second loss, or the devices of the second gradient ("on 1 device").
      precision: dtype of the computation.
      devices: number of devices of the first gradient.
      relative: largest relative difference of a parameter.
      cosine: smallest cosine of a parameter.
      parameters: relative difference and cosine of each parameter, by name.
    """

    mine: str
    peer: str
    precision: str
    devices: int
    relative: float
    cosine: float
    parameters: dict[str, Difference]

    @property
    def equal(self) -> bool:
        """Whether the gradients agree to the rounding of the precision."""
        return self.relative <= ROUNDING[self.precision]


class DriftPoint(NamedTuple):
    """The state after some updates on one rollout. R is the policy's ratio to the sampler, token by token.

    Attributes:
      update: number of updates.
      log_ratio: mean |log R|.
      kl: mean of R − 1 − log R.
      ratio_max: largest R.
      cosine: by pair, the cosine between the whole gradients.
      zero_share: by loss, the share of the tokens trained at R = 1 whose gradient is now exactly 0.
    """

    update: int
    log_ratio: float
    kl: float
    ratio_max: float
    cosine: dict[str, float]
    zero_share: dict[str, float]


def compare(mine: str, peer: str, lab: Gradients, one: dict[str, Any], other: dict[str, Any]) -> Comparison:
    """Compares two gradients of a lab, parameter by parameter."""
    each = {name: compare_arrays(one[name], other[name]) for name in other}
    largest, smallest = max(d.relative for d in each.values()), min(d.cosine for d in each.values())
    return Comparison(mine, peer, lab.dtype, lab.mesh.size, largest, smallest, each)


def compare_on_policy(lab: Gradients, weights: Any, pairs: Sequence[Pair] = PAIRS) -> list[Comparison]:
    """Compares the pairs' gradients as if `weights` had sampled: R is exactly 1."""
    gradients = {label_loss(loss): lab(loss, weights, on_policy=True) for pair in pairs for loss in pair}
    labels = [(label_loss(mine), label_loss(peer)) for mine, peer in pairs]
    return [compare(mine, peer, lab, gradients[mine], gradients[peer]) for mine, peer in labels]


def compare_across_devices(lab: Gradients, alone: Gradients, weights: Any) -> list[Comparison]:
    """Compares each loss's gradient on the devices of `lab` with that on the devices of `alone`."""
    peer = f"on {alone.mesh.size} device"
    both = [(label_loss(loss), *(each(loss, weights, on_policy=True) for each in (lab, alone))) for loss in LOSSES]
    return [compare(name, peer, lab, one, other) for name, one, other in both]


def follow_drift(lab: Gradients, weights: Any, pairs: Sequence[Pair] = PAIRS) -> list[DriftPoint]:
    """Compares the pairs' gradients before the config's updates on the rollout, and after 1, 2, 4, … and all."""
    last = lab.experiment.config.updates_per_step
    return [
        measure_drift(lab, after, update, pairs)
        for update, after in enumerate(iterate_updates(lab.experiment, lab.rollout, weights))
        if update.bit_count() < 2 or update == last
    ]


def measure_drift(lab: Gradients, weights: Any, update: int, pairs: Sequence[Pair]) -> DriftPoint:
    """Compares the pairs' gradients at weights that are `update` updates away from those that sampled."""
    losses = {label_loss(loss): loss for pair in pairs for loss in pair}
    gradients = {name: lab(loss, weights, on_policy=False) for name, loss in losses.items()}
    cosine = {}
    for pair in pairs:
        one, other = gradients[label_loss(pair.mine)], gradients[label_loss(pair.peer)]
        cosine[pair.label] = compare_arrays(
            *(np.concatenate([x[name].ravel() for name in other]) for x in (one, other))
        ).cosine
    logp_BT, batches = lab.logp(weights), {name: lab.batch(loss) for name, loss in losses.items()}
    zero_share = {
        name: multipliers.zero_share(resolve(loss.name, loss.options), logp_BT, batches[name])
        for name, loss in losses.items()
    }
    _, batch = batches.popitem()
    inside_BT = batch.answer_BT >= 0
    log_ratio = (logp_BT - batch.old_logp_BT)[inside_BT]
    kl = np.asarray(k3(batch.old_logp_BT, logp_BT, batch.answer_BT))[inside_BT]
    moments = float(np.abs(log_ratio).mean()), float(kl.mean()), float(np.exp(log_ratio.max()))
    return DriftPoint(update, *moments, cosine, zero_share)


def iterate_updates(experiment: Experiment, rollout: RolloutBuffer, weights: Any) -> Iterator[Any]:
    """Yields the weights before the updates of the config's loss on one rollout, and after each update."""
    config = experiment.config
    optimizer = make_optimizer(config.optimizer, config.updates_per_step, experiment.model.trained_axes)
    step = experiment.step(optimizer)
    weights = experiment.place(weights, experiment.model.weight_specs)
    state = jax.jit(optimizer.init)(weights)
    packed, totals = jax.jit(step.pack)(rollout.groups, np.int32(rollout.count), rollout.prompts, np.int32(0))

    @jax.jit
    def program(weights, state, packed, totals):
        with jax.default_matmul_precision(config.model.precision):
            return step.updater(weights, state, packed, totals, None, jnp.bool_(False))[:2]

    yield jax.device_get(weights)
    for update in range(config.updates_per_step):
        weights, state = program(weights, state, *jax.tree.map(lambda x, i=update: x[i], (packed, totals)))
        yield jax.device_get(weights)


def starting_weights(experiment: Experiment, workdir: Path) -> Any:
    """Returns the weights after the config's warm start, if it has one; on the host."""
    if experiment.config.base or not experiment.config.warm_start.steps:
        return jax.device_get(experiment.starting_weights())
    return jax.device_get(warm_start(experiment, Workdir(workdir / WARM_START_FOLDER)))


def run(config: Config, workdir: Path) -> None:
    """Runs the lab: samples, compares, draws, and writes all figures into `workdir`.

    Raises:
      ValueError: if adapters are set, sizes don't divide over the devices, or no group of the rollout is mixed.
    """
    if config.lora.rank:
        raise ValueError(f"config.lora.rank={config.lora.rank}: gradients of all weights are compared; use lora.rank=0")
    began = time.perf_counter()
    # JAX reads this when it first looks for devices. It concerns CPUs only.
    jax.config.update("jax_num_cpu_devices", DEVICES)
    devices, mesh = jax.devices()[:DEVICES], config.mesh
    meshes = [make_mesh(1, 1, devices[:1])]
    if len(devices) > 1:
        meshes.append(make_mesh(mesh.data, mesh.tensor, devices, mesh.replica))
    with open_experiment(dataclasses.replace(config, mesh=MeshConfig()), workdir, devices[:1]) as experiment:
        check_sizes(experiment.config, experiment.loss, meshes[-1])
        weights = starting_weights(experiment, workdir)
        rollout = sample_buffer(experiment, weights)
        print(rollout_line(rollout_figures(rollout)), flush=True)
        comparisons = []
        for dtype in ROUNDING:
            labs = [Gradients(experiment, rollout, mesh, LOSSES, dtype) for mesh in meshes]
            for lab in labs:
                comparisons += compare_on_policy(lab, weights)
                print(f"  {dtype} on {lab.mesh.size}: {time.perf_counter() - began:.0f} s", flush=True)
            for lab in labs[1:]:
                comparisons += compare_across_devices(lab, labs[0], weights)
        print(on_policy_table(comparisons), flush=True)
        points = follow_drift(labs[0], weights)  # in the last of the precisions, which real runs use
        print(drift_table(points), flush=True)
    relations = matrix.make_matrix(matrix.shown_losses(), equalities.rollout_groups(rollout))
    rows, seconds = equalities.relate_to_peers(), time.perf_counter() - began
    result = {
        "run": provenance(config, experiment.model.attention.name) | {"seconds": seconds},
        "config": to_dict(config),
        "rollout": rollout_figures(rollout),
        "on_policy": [each._asdict() for each in comparisons],
        "drift": [each._asdict() for each in points],
        "equalities": [each._asdict() for each in rows],
        "matrix": {row: {column: cell._asdict() for column, cell in cells.items()} for row, cells in relations.items()},
    }
    # Ten digits are enough to distinguish a cosine from 1.
    result = json.loads(json_text(result), parse_float=lambda digits: float(f"{float(digits):.10g}"))
    Workdir(workdir).write_json("equivalence.json", result)
    (workdir / "equalities.md").write_text(equalities.format_markdown(rows) + "\n", encoding="utf-8")
    (workdir / "matrix.md").write_text(matrix.format_markdown(relations) + "\n", encoding="utf-8")
    matrix.draw(relations, workdir / "matrix.png")
    equivalence_report.draw(comparisons, points, workdir)
    equivalence_report.draw_multipliers(multipliers.compute_curves(multipliers.nft_and_grpo()), workdir)
    files = "equivalence.json, equivalence.png, multipliers.png, equalities.md, matrix.md, matrix.png"
    print(f"{seconds:.0f} s; in {workdir}: {files}")
