"""The scale of the loss: what AdamW's ε and clipping make of it; what the sampler's log-probs do to NFT's weights."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nft_jax.compare.equivalence import starting_weights
from nft_jax.compare.gradients import RolloutBuffer, sample_buffer
from nft_jax.compare.multipliers import ratio_multipliers
from nft_jax.config import Config, OptimizerConfig, to_dict
from nft_jax.experiment import Experiment, open_experiment
from nft_jax.losses import resolve
from nft_jax.models.sharded import count_weights
from nft_jax.run.metrics import optimizer_metrics
from nft_jax.run.workdir import Workdir, provenance
from nft_jax.update.optimizer import make_optimizer
from nft_jax.update.packing import replace_values

# Those of the released 32B and 7B recipes, the answer limits of the two, which are the default, and larger ones.
CONSTANT_TOKENS = (31.25, 62.5, 250.0, 1000.0, 3584.0, 14336.0, 57344.0, 229376.0)
# Success rates of groups of 16 answers.
RATES, ANSWERS = (1 / 16, 1 / 2, 3 / 4, 7 / 8, 15 / 16), 16
# AdamW without ε, but 0/0.
NO_EPSILON = 1e-30


class Scale(NamedTuple):
    """What becomes of the gradients of some updates at one scale of the loss.

    Attributes:
      constant_tokens: `loss.constant_tokens`, to which the scale is inversely proportional.
      gradient_norm: mean over the updates, before clipping.
      updates_clipped, gradient_over_epsilon: as in the metrics of a run.
      step: mean over the weights of |AdamW's step| after these updates, in learning rates.
      kept: `step`, divided by what it would be without ε.
    """

    constant_tokens: float
    gradient_norm: float
    updates_clipped: float
    gradient_over_epsilon: float
    step: float
    kept: float


class Gap(NamedTuple):
    """What the difference between sampler and trainer does to incorrect tokens of groups of one success rate.

    Attributes:
      weight: mean over the tokens of NFT's multiplier at R = trainer / sampler, divided by that at R = 1.
    """

    rate: float
    weight: float


class Updates(NamedTuple):
    """The updates of one rollout, all at the weights that sampled it.

    Attributes:
      gradients: The gradient of each, on the host.
      log_ratio_T: float32, log-prob by the trainer minus log-prob by the sampler of every answer token.
    """

    gradients: list[Any]
    log_ratio_T: np.ndarray


def measure_updates(experiment: Experiment, rollout: RolloutBuffer, weights: Any) -> Updates:
    """Computes the gradient of each of the config's updates on a rollout at host weights, none of which is taken."""
    step = experiment.step(experiment.make_optimizer())
    weights = experiment.place(weights, experiment.model.weight_specs)
    packed, totals = jax.jit(step.pack)(rollout.groups, np.int32(rollout.count), rollout.prompts, np.int32(0))

    @jax.jit
    def program(weights, packed, totals):
        with jax.default_matmul_precision(experiment.config.model.precision):
            logp_XBT = step.updater.logp(weights, packed)
            gradient, _ = step.updater.gradient(weights, replace_values(packed, old_logp_BT=logp_XBT), totals)
        return gradient, logp_XBT

    gradients, log_ratios = [], []
    for update in np.flatnonzero(jax.device_get(totals.answers)):
        part, counts = jax.tree.map(lambda x, i=update: x[i], (packed, totals))
        gradient, logp = jax.device_get(program(weights, part, counts))
        gradients.append(gradient)
        inside = np.asarray(part.rows.batch.answer_BT) >= 0
        log_ratios.append((logp - np.asarray(part.rows.batch.old_logp_BT))[inside])
    return Updates(gradients, np.concatenate(log_ratios))


def measure_scales(
    gradients: Sequence[Any],
    config: OptimizerConfig,
    given: float,
    constants: Sequence[float] = CONSTANT_TOKENS,
) -> list[Scale]:
    """Returns what AdamW makes of gradients, as if each of `constants` had been `loss.constant_tokens`.

    Args:
      gradients: of consecutive updates.
      given: the `loss.constant_tokens` that they have.
    """
    weights, scales = count_weights(gradients[0]), []
    norm_O = np.array([float(optax.tree.norm(gradient)) for gradient in gradients])
    with_epsilon = make_walk(config)
    without = make_walk(dataclasses.replace(config, epsilon=NO_EPSILON, clip_norm=np.inf))
    for tokens in constants:
        factor = given / tokens
        step = with_epsilon(gradients, np.full(len(gradients), factor))
        # Without ε a step does not depend on the scale. With a root mean square of 1, no square of a small gradient is
        # 0 in float32.
        clipped_O = np.minimum(factor, config.clip_norm / norm_O)
        unit = np.sqrt(weights) / np.mean(clipped_O * norm_O)
        scales.append(
            Scale(
                tokens,
                float(np.mean(norm_O)) * factor,
                **optimizer_metrics(norm_O * factor, config, weights),
                step=step,
                kept=step / without(gradients, clipped_O * unit),
            )
        )
    return scales


def make_walk(config: OptimizerConfig) -> Callable[[Sequence[Any], np.ndarray], float]:
    """Returns a function that gives gradients, times a factor each, to the optimizer, and returns its last step's size.

    The size is the mean over the weights of |step|, without weight decay, at a learning rate of 1.
    """
    constant = {"learning_rate": 1.0, "schedule": "constant", "warmup_updates": 0, "weight_decay": 0.0}
    optimizer = make_optimizer(dataclasses.replace(config, name="adamw", offload=False, **constant), 1, None)
    init = jax.jit(optimizer.init)

    @jax.jit
    def update(gradient, state, factor):
        change, state = optimizer.update(jax.tree.map(lambda x: factor * x, gradient), state, gradient)
        return sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(change)), state

    def walk(gradients, factor_O):
        state = init(gradients[0])
        for gradient, factor in zip(gradients, factor_O, strict=True):
            size, state = update(gradient, state, np.float32(factor))
        return float(size) / count_weights(gradients[0])

    return walk


def measure_gap(log_ratio_T: np.ndarray, rates: Sequence[float] = RATES) -> list[Gap]:
    """Returns how strongly incorrect tokens train by the sampler's log-probs, relative to recomputed ones (R = 1).

    With ε = 1 a token that is likelier by the trainer than by the sampler has R times its weight; one that is less
    likely, R = 1 − δ, keeps about 1 / (1 + δ / (1 − r̂)). So on average a gap weakens, most where r̂ is near 1.
    """
    nft, ratio_T = resolve("nft", {}), np.exp(log_ratio_T.astype(np.float32))

    def weigh(ratio_T, rate):
        return ratio_multipliers(nft, ratio_T, rate=rate, correct=False, answers=ANSWERS)

    return [Gap(rate, float(np.mean(weigh(ratio_T, rate)) / weigh(np.ones(1), rate)[0])) for rate in rates]


def format_markdown(scales: Sequence[Scale], gaps: Sequence[Gap], log_ratio_T: np.ndarray) -> str:
    """Returns the two tables."""
    lines = [
        "| `loss.constant_tokens` | gradient norm | updates clipped | RMS gradient / ε | step / learning rate "
        "| of the step without ε |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {x.constant_tokens:g} | {x.gradient_norm:.3g} | {x.updates_clipped:.0%} | {x.gradient_over_epsilon:.3g} | "
        f"{x.step:.3f} | {x.kept:.3f} |"
        for x in scales
    ]
    size = np.abs(log_ratio_T)
    lines += [
        "",
        f"Trainer against sampler on {size.size:,} tokens: mean |log R| {size.mean():.2g}, largest {size.max():.2g}.",
        "",
        "| success rate r̂ | " + " | ".join(f"{gap.rate * ANSWERS:g}/{ANSWERS}" for gap in gaps) + " |",
        "|---" * (len(gaps) + 1) + "|",
        "| weight of incorrect tokens by the sampler's log-probs, of that by recomputed ones | "
        + " | ".join(f"{gap.weight:.3f}" for gap in gaps)
        + " |",
    ]
    return "\n".join(lines)


def run(config: Config, workdir: Path) -> None:
    """Samples one rollout, computes the gradients of its updates, and writes both tables into `workdir`.

    Raises:
      ValueError: if no group of the rollout is mixed, the loss has not the normalizer `constant`, or the optimizer is
        not AdamW.
    """
    began = time.perf_counter()
    normalizer = config.loss.normalizer or resolve(config.loss.name, config.loss.options).normalizer
    if normalizer != "constant":
        raise ValueError(
            f"config.loss.name={config.loss.name!r} with the normalizer {normalizer!r}: only `constant` has a scale of "
            f"its own; use config.loss.name=nft, rft or dr_grpo"
        )
    if config.optimizer.name != "adamw":
        raise ValueError(f"config.optimizer.name={config.optimizer.name!r}: the steps of adamw are measured")
    with open_experiment(config, workdir) as experiment:
        rollout = sample_buffer(experiment, weights := starting_weights(experiment, workdir))
        updates = measure_updates(experiment, rollout, weights)
        print(f"{len(updates.gradients)} gradients after {time.perf_counter() - began:.0f} s", flush=True)
        source = provenance(config, experiment.model.attention.name)
    given = config.loss.constant_tokens or config.rollout.max_answer_tokens
    scales, gaps = measure_scales(updates.gradients, config.optimizer, given), measure_gap(updates.log_ratio_T)
    text, size = format_markdown(scales, gaps, updates.log_ratio_T), np.abs(updates.log_ratio_T)
    result = {
        "run": source | {"seconds": time.perf_counter() - began},
        "config": to_dict(config),
        "rollout": {"groups": rollout.count, "updates": len(updates.gradients), "tokens": size.size},
        "weights": count_weights(updates.gradients[0]),
        "log_ratio": {"mean_size": float(size.mean()), "largest": float(size.max())},
        "scales": [each._asdict() for each in scales],
        "gaps": [each._asdict() for each in gaps],
    }
    Workdir(workdir).write_json("scale.json", result)
    (workdir / "scale.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nin {workdir}: scale.json, scale.md", flush=True)
