"""Every check of a configuration that needs neither a device nor a file, made before anything is loaded or compiled."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from nft_jax import losses
from nft_jax.names import suggestion
from nft_jax.update.packing import row_tokens_needed
from nft_jax.verify.pool import isolation

if TYPE_CHECKING:
    from nft_jax.config import Config

CHOICES = {
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.precision": ("default", "high", "highest"),
    "model.remat": ("none", "dots", "attention", "full", "offload"),
    "model.attention": ("auto", "xla", "splash", "triton", "cudnn"),
    "data.long_prompts": ("drop", "refuse"),
    "rollout.lockstep": ("auto", "yes", "no"),
    "selection.ahead": ("drop", "finish", "no"),
    "packing.share_prompts": ("auto", "yes", "no"),
    "verify.isolation": isolation.MODES,
    "optimizer.name": ("adamw", "muon"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "warm_start.optimizer.name": ("adamw", "muon"),
    "warm_start.optimizer.schedule": ("constant", "linear", "cosine"),
    "old_logp": ("sampler", "recompute", "current"),
    "record.best_by": ("greedy", "sampled", "none"),
}
POSITIVE = (
    "steps",
    "prompts_per_step",
    "answers_per_prompt",
    "updates_per_step",
    "model.layers",
    "model.width",
    "model.heads",
    "model.kv_heads",
    "model.head_size",
    "model.mlp_width",
    "model.vocab_multiple",
    "model.unrolled_layers",
    "data.max_prompt_tokens",
    "data.arithmetic_max_operand",
    "rollout.max_answer_tokens",
    "rollout.temperature",
    "selection.max_rounds",
    "packing.rows_per_micro_batch",
    "packing.logp_chunk_tokens",
    "verify.workers",
    "verify.seconds_per_answer",
    "verify.seconds_per_round",
    "warm_start.examples_per_update",
    "warm_start.arithmetic_examples",
    "evaluation.answers_per_problem",
    "evaluation.problems_per_batch",
    "evaluation.temperature",
    "evaluation.top_p",
    "record.keep_checkpoints",
    "record.hang_factor",
    "record.hang_seconds",
    "optimizer.learning_rate",
    "optimizer.epsilon",
    "optimizer.clip_norm",
    "warm_start.optimizer.learning_rate",
    "warm_start.optimizer.epsilon",
    "warm_start.optimizer.clip_norm",
    "mesh.replica",
    "mesh.tensor",
    "compare.sampled_tokens",
)
NOT_NEGATIVE = (
    "warm_start.steps",
    "optimizer.warmup_updates",
    "optimizer.weight_decay",
    "warm_start.optimizer.warmup_updates",
    "warm_start.optimizer.weight_decay",
    "loss.constant_tokens",
    "loss.kl_weight",
    "packing.row_tokens",
    "selection.candidates_per_round",
    "rollout.slots",
    "rollout.max_halvings",
    "verify.answers_per_submission",
    "evaluation.every_steps",
    "evaluation.max_problems",
    "evaluation.top_k",
    "record.grace_seconds",
    "record.rollouts_every_steps",
    "record.checkpoint_every_steps",
    "model.vocab",
)
BELOW_ONE = tuple(f"{chain}.{beta}" for chain in ("optimizer", "warm_start.optimizer") for beta in ("beta1", "beta2"))


def check(config: "Config") -> None:
    """Checks everything that needs neither a device nor a file.

    Raises:
      ValueError: all faults at once; each says what was given, what is allowed, and what to type instead.
    """
    faults = []

    def value(path):
        result = config
        for name in path.split("."):
            result = getattr(result, name)
        return result

    for path, allowed in CHOICES.items():
        if value(path) not in allowed:
            faults.append(
                f"config.{path}={value(path)!r}: use one of {', '.join(allowed)}{suggestion(value(path), allowed)}"
            )
    faults += [f"config.{path}={value(path)}: must be positive" for path in POSITIVE if not value(path) > 0]
    faults += [f"config.{path}={value(path)}: must be 0 or more" for path in NOT_NEGATIVE if not value(path) >= 0]
    faults += [f"config.{path}={value(path)}: must be in [0, 1)" for path in BELOW_ONE if not 0 <= value(path) < 1]
    faults += _data_faults(config) + _sampling_faults(config) + _size_faults(config) + _strict_faults(config)
    try:
        loss = losses.resolve(config.loss.name, config.loss.options)
    except ValueError as error:
        faults.append(f"config.loss: {error}")
    else:
        faults += _loss_faults(config, loss)
    if faults:
        raise ValueError("the configuration can't run:\n  " + "\n  ".join(faults))


def _data_faults(config):
    data = config.data
    if not data.exclude or (data.train and data.hygiene):
        return []
    remedy = "a file by config.data.train" if not data.train else "config.data.hygiene=true"
    return [
        f"config.data.exclude={data.exclude!r}: only hygiene leaves problems out, and never generated ones; give "
        f"{remedy}, or config.data.exclude=''"
    ]


def _sampling_faults(config):
    faults = []
    if config.rollout.top_p != 1.0 or config.rollout.top_k != 0:
        faults.append(
            f"config.rollout.top_p={config.rollout.top_p}, top_k={config.rollout.top_k}: truncated sampling in "
            f"training biases the ratio by the mass that was cut; use top_p=1.0, top_k=0 (evaluation may truncate)"
        )
    if not 0 <= config.selection.rate_above < config.selection.rate_below <= 1:
        faults.append(
            f"config.selection.rate_above={config.selection.rate_above}, high={config.selection.rate_below}: need 0 <= low < high <= 1; "
            f"low=0 high=1 keeps every group that is neither all right nor all wrong"
        )
    if config.evaluation.top_p > 1:
        faults.append(f"config.evaluation.top_p={config.evaluation.top_p}: a share of the mass; 1.0 keeps all of it")
    most = config.evaluation.answers_per_problem
    try:
        told = all(1 <= k <= most for k in config.evaluation.ks)
    except ValueError:
        told = False
    if not told:
        faults.append(
            f"config.evaluation.pass_at={config.evaluation.pass_at!r}: {most} sampled answers tell pass@k for k from 1 "
            f"to {most}; give such numbers, comma between them, or more config.evaluation.answers_per_problem"
        )
    if not 0 <= config.warm_start.incorrect_share <= 1:
        faults.append(
            f"config.warm_start.incorrect_share={config.warm_start.incorrect_share}: a share, between 0 and 1"
        )
    if config.selection.carry and config.old_logp != "sampler":
        faults.append(
            f"config.selection.carry=true with config.old_logp={config.old_logp!r}: carried groups were sampled by "
            f"older weights, whose log-probs only the sampler knows; use old_logp='sampler'"
        )
    return faults


def _size_faults(config):
    faults = []
    Q, U = config.prompts_per_step, config.updates_per_step
    if U > 0 and Q % U:
        near = [n for n in range(1, Q + 1) if Q % n == 0]
        faults.append(f"config.updates_per_step={U} does not divide config.prompts_per_step={Q}; use one of {near}")
    if config.model.heads % max(config.model.kv_heads, 1):
        faults.append(
            f"config.model.kv_heads={config.model.kv_heads} does not divide config.model.heads={config.model.heads}"
        )
    if config.model.head_size % 2:
        faults.append(f"config.model.head_size={config.model.head_size}: rotary positions need an even size")
    return faults


def _strict_faults(config):
    if not config.strict_on_policy:
        return []
    wrong = {
        "updates_per_step": (config.updates_per_step, 1),
        "selection.carry": (config.selection.carry, False),
        "rollout.temperature": (config.rollout.temperature, 1.0),
        "old_logp": (config.old_logp, "current"),
    }
    return [
        f"config.strict_on_policy=true needs config.{name}={needed}, got {given}"
        for name, (given, needed) in wrong.items()
        if given != needed
    ]


def _loss_faults(config, loss):
    faults = []
    groups = jax.ShapeDtypeStruct((1, 2), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    try:
        # Options that depend on the answer limit (DAPO's overlong buffer) show here, on shapes alone.
        jax.eval_shape(lambda right, length: loss.advantage(right, length, config.rollout.max_answer_tokens), *groups)
    except ValueError as error:
        faults.append(f"config.loss.{loss.name}: {error}")
    normalizer = config.loss.normalizer or loss.normalizer
    if normalizer not in losses.NORMALIZERS:
        known = tuple(losses.NORMALIZERS)
        faults.append(
            f"config.loss.normalizer={normalizer!r}: use one of {', '.join(known)}{suggestion(normalizer, known)}"
        )
    if (normalizer == "pair_mean") != (loss.unit == "pair"):
        faults.append(
            f"config.loss.normalizer={normalizer!r} does not fit loss {loss.name!r}, whose unit is the {loss.unit}"
        )
    return faults + _row_faults(config, loss)


def _row_faults(config, loss):
    given, J = config.packing.row_tokens, losses.UNITS[loss.unit]
    if config.packing.share_prompts not in CHOICES["packing.share_prompts"]:
        return []
    shared = config.prompts_are_shared
    needed = row_tokens_needed(config.data.max_prompt_tokens, config.rollout.max_answer_tokens, J, shared)
    if not 0 < given < needed:
        return []
    parts = "max_answer_tokens" if shared else "(max_prompt_tokens + max_answer_tokens − 1)"
    return [
        f"config.packing.row_tokens={given}: one {loss.unit} of loss {loss.name!r} can take {needed} = "
        f"{'2 × ' * (J - 1)}{parts} tokens; use at least {needed}, or 0 for just that"
    ]
