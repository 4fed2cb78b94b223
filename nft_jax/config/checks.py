"""Checks of settings against each other; the limits of a single setting are declared at its field."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from nft_jax import losses
from nft_jax.config.host_sections import TRACKERS
from nft_jax.config.model_section import LAYER_KINDS
from nft_jax.config.sections import LORA_TARGETS
from nft_jax.config.setting import settings_of, value_of
from nft_jax.config.settings import Settings
from nft_jax.config.sizes import row_tokens_needed
from nft_jax.losses import Loss
from nft_jax.names import quote, suggestion, unknown


def check(config: Settings) -> None:
    """Checks everything that needs neither a device nor a file.

    Raises:
      ValueError: with all faults at once; each says what was given, what is allowed, and what to type instead.
    """
    alone = [setting.fault(value_of(config, setting.name)) for setting in settings_of(Settings)]
    faults = [fault for fault in alone if fault is not None]
    joint_checks = _data_faults, _record_faults, _sampling_faults, _evaluation_faults, _size_faults, _lora_faults
    for joint in (*joint_checks, _strict_faults, _bitwise_faults, _loss_faults):
        try:
            faults += joint(config)
        except (ArithmeticError, TypeError, ValueError):
            # Values that are refused alone may be none that can be computed with.
            if not faults:
                raise
    if faults:
        raise ValueError("the configuration can't run:\n  " + "\n  ".join(faults))


def _data_faults(config: Settings) -> Iterator[str]:
    data = config.data
    if data.exclude and not (data.train and data.hygiene):
        remedy = "a file by config.data.train" if not data.train else "config.data.hygiene=true"
        yield (
            f"config.data.exclude={quote(data.exclude)}: hygiene alone leaves problems out, and generated ones never; "
            f"give {remedy}, or config.data.exclude=''"
        )


def _record_faults(config: Settings) -> Iterator[str]:
    for name in config.record.tracker_names:
        if name not in TRACKERS:
            yield f"config.record.trackers={quote(config.record.trackers)}: {unknown('tracker', name, TRACKERS)}"


def _sampling_faults(config: Settings) -> Iterator[str]:
    rollout, selection = config.rollout, config.selection
    if rollout.top_p != 1.0 or rollout.top_k != 0:
        yield (
            f"config.rollout.top_p={rollout.top_p}, top_k={rollout.top_k}: truncated sampling in training biases the "
            f"ratio by the mass that was cut; use top_p=1.0, top_k=0 (evaluation may truncate)"
        )
    try:
        _ = rollout.stop_texts
    except ValueError as error:
        remedy = 'give one text, or a JSON list such as ["\\nQ:", "###"]'
        yield f"config.rollout.stop={quote(rollout.stop)}: {error}; {remedy}"
    try:
        _ = rollout.end_numbers
    except ValueError:
        yield f"config.rollout.end_ids={quote(rollout.end_ids)}: give ids, comma between them, such as 151643"
    if not selection.rate_above < selection.rate_below:
        yield (
            f"config.selection.rate_above={selection.rate_above} must be below rate_below={selection.rate_below}; "
            f"rate_above=0 rate_below=1 keeps every group that has both correct and incorrect answers"
        )
    if selection.carry and config.old_logp != "sampler":
        yield (
            f"config.selection.carry=true with config.old_logp={config.old_logp!r}: carried groups were sampled by "
            f"older weights, whose log-probs only the sampler knows; use old_logp='sampler'"
        )
    if rollout.partial and config.old_logp != "sampler":
        yield (
            f"config.rollout.partial=true with config.old_logp={config.old_logp!r}: some tokens were sampled by older "
            f"weights, whose log-probs only the sampler knows; use old_logp='sampler'"
        )
    if rollout.partial and config.distillation.teacher:
        yield (
            "config.rollout.partial=true with config.distillation.teacher: a distillation is over the policy's own "
            "samples, and some tokens are those of older weights; use partial=false"
        )
    if rollout.partial and rollout.lockstep == "no":
        yield (
            "config.rollout.partial=true with config.rollout.lockstep='no': a data shard would wait while others draw; "
            "use lockstep='auto'"
        )


def _evaluation_faults(config: Settings) -> Iterator[str]:
    most = config.evaluation.answers_per_problem
    try:
        possible = all(1 <= k <= most for k in config.evaluation.ks)
    except ValueError:
        possible = False
    if not possible:
        yield (
            f"config.evaluation.pass_at={quote(config.evaluation.pass_at)}: {most} sampled answers give pass@k for k "
            f"from 1 to {most}; give such numbers, comma between them, or more config.evaluation.answers_per_problem"
        )


def _size_faults(config: Settings) -> Iterator[str]:
    Q, U, model = config.prompts_per_step, config.updates_per_step, config.model
    if U > 0 and Q % U:
        yield f"config.updates_per_step={U} does not divide config.prompts_per_step={Q}; use one of {_divisors(Q)}"
    if model.heads % max(model.kv_heads, 1):
        yield f"config.model.kv_heads={model.kv_heads} does not divide config.model.heads={model.heads}"
    if model.head_size % 2:
        yield f"config.model.head_size={model.head_size}: rotary positions need an even size"
    if model.experts and not 1 <= model.experts_per_token <= model.experts:
        yield (
            f"config.model.experts_per_token={model.experts_per_token}: use a number from 1 to config.model.experts="
            f"{model.experts}"
        )
    if not model.experts and (model.experts_per_token or model.experts_normalized):
        yield "config.model.experts_per_token and experts_normalized need config.model.experts, their number, such as 8"
    if model.experts and model.mlp_bias:
        yield "config.model.mlp_bias=true: experts have no biases; use mlp_bias=false"
    if not model.layer_kinds or set(model.layer_kinds) - set(LAYER_KINDS):
        yield (
            f"config.model.layer_kinds={quote(model.layer_kinds)}: use one letter for each of several layers, "
            f"{' or '.join(LAYER_KINDS)}, such as 'wwwf'"
        )
    if "w" in model.layer_kinds and not (model.window or model.window_rope_theta):
        yield (
            f"config.model.layer_kinds={quote(model.layer_kinds)}: layers of kind w need config.model.window, such as "
            f"512, or config.model.window_rope_theta, such as 10000"
        )
    if model.window and "w" not in model.layer_kinds:
        yield (
            f"config.model.window={model.window} needs layers of kind w in config.model.layer_kinds, such as 'wwwf'; "
            f"'w' makes all layers so"
        )
    scaling = model.rope_scaling
    if scaling.kind in ("llama3", "yarn") and not scaling.original_tokens:
        yield (
            f"config.model.rope_scaling.kind={scaling.kind!r} needs config.model.rope_scaling.original_tokens, the "
            f"longest text of the first training, such as 8192"
        )
    if not scaling.low_frequency < scaling.high_frequency:
        yield (
            f"config.model.rope_scaling.low_frequency={scaling.low_frequency:g} must be below high_frequency="
            f"{scaling.high_frequency:g}"
        )


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(max(number, 0)) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _lora_faults(config: Settings) -> Iterator[str]:
    names = config.lora.target_names
    if config.lora.rank and not names:
        given = quote(config.lora.targets)
        yield f"config.lora.targets={given}: name some of {', '.join(LORA_TARGETS)}, or use lora.rank=0"
    if config.lora.base == "int8" and not config.lora.rank:
        yield "config.lora.base='int8' freezes the layers' matrices; it needs adapters that train, such as lora.rank=16"
    if config.lora.base == "int8" and config.rollout.weights == "int8":
        yield (
            "config.lora.base='int8' with config.rollout.weights='int8': the sampler already reads the frozen int8 "
            "matrices; leave rollout.weights out"
        )
    for name in names:
        if name not in LORA_TARGETS:
            yield f"config.lora.targets: {unknown('weight', name, LORA_TARGETS)}"


def _strict_faults(config: Settings) -> Iterator[str]:
    needs = {
        "updates_per_step": 1,
        "selection.carry": False,
        "rollout.partial": False,
        "rollout.temperature": 1.0,
        "rollout.weights": "model",
        "old_logp": "current",
    }
    for name, needed in needs.items():
        if config.strict_on_policy and (given := value_of(config, name)) != needed:
            yield f"config.strict_on_policy=true needs config.{name}={needed}, got {given}"


def _bitwise_faults(config: Settings) -> Iterator[str]:
    """Refuses what makes the sampler's weights others than the trainer's, or their products others of another order."""
    allowed = {
        "lora.rank": ((0,), "the sampler reads merged weights"),
        "rollout.weights": (("model",), "the sampler reads other weights"),
        "selection.carry": ((False,), "older weights sampled what is carried"),
        "rollout.partial": ((False,), "older weights sampled some of the tokens"),
        "model.attention": (("auto", "xla"), "kernels have their own order of sums in rows and in the decode loop"),
        "model.experts": ((0,), "an expert's products have as many rows as tokens that chose it"),
        "model.remat": (("none", "attention", "full", "offload"), "a layer keeps no products of loops"),
        "mesh.tensor": ((1,), "devices would sum their parts of products in an order of their own"),
        "mesh.replica": ((1,), "the rows of replicas are computed together"),
    }
    for name, (values, reason) in allowed.items():
        if config.model.bitwise and (given := value_of(config, name)) not in values:
            needed = " or ".join(str(value) for value in values)
            yield f"config.model.bitwise=true needs config.{name}={needed}, got {given}: {reason}"


def _loss_faults(config: Settings) -> Iterator[str]:
    try:
        loss = config.resolve_loss()
    except ValueError as error:
        yield f"config.loss: {error}"
        return
    if loss.groups == "mixed" and config.answers_per_prompt == 1:
        yield (
            f"config.answers_per_prompt=1: loss {loss.name!r} trains on prompts with both correct and incorrect "
            f"answers, and one answer is never both; use 2 or more, such as 8"
        )
    group = jax.ShapeDtypeStruct((1, 2), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    try:
        # Options that depend on the limit of an answer (DAPO's overlong buffer) are checked here, on shapes alone.
        jax.eval_shape(lambda *each: loss.advantage(*each, config.rollout.max_answer_tokens), *group)
    except ValueError as error:
        yield f"config.loss.{loss.name}: {error}"
    normalizer = config.loss.normalizer or loss.normalizer
    given = f"config.loss.normalizer={quote(normalizer)}"
    if normalizer not in losses.NORMALIZERS:
        known = tuple(losses.NORMALIZERS)
        yield f"{given}: use one of {', '.join(known)}{suggestion(normalizer, known)}"
    if (normalizer == "pair_mean") != (loss.unit == "pair"):
        yield f"{given} does not fit loss {loss.name!r}, whose unit is the {loss.unit}"
    if config.loss.correction != losses.NO_CORRECTION and config.old_logp != "recompute":
        yield (
            f"config.loss.correction={config.loss.correction!r} with config.old_logp={config.old_logp!r}: the gap "
            f"between trainer and sampler is only known by a forward pass of the trainer; use old_logp='recompute'"
        )
    if config.distillation.alone and not config.distillation.teacher:
        yield "config.distillation.alone=true: there is no teacher; name one by config.distillation.teacher=FOLDER"
    elif "teacher_logp" in loss.reads and not config.distillation.teacher:
        yield f"config.loss.name={quote(loss.name)} reads teacher_logp: give config.distillation.teacher=FOLDER"
    yield from _reward_faults(config, loss)
    yield from _row_faults(config, loss)


def _reward_faults(config: Settings, loss: Loss) -> Iterator[str]:
    verify, name = config.verify, config.loss.token_reward
    if verify.graded and ":" not in verify.grader:
        yield (
            f"config.verify.correct_from={verify.correct_from:g}: grader {verify.grader!r} gives verdicts alone; name "
            f"one of your own that returns rewards, or use 0"
        )
    if not name:
        return
    learner = "distillation alone learns from a teacher" if config.distillation.alone else ""
    learner = learner or (f"loss {loss.name!r} learns from verdicts" if loss.by_verdicts else "")
    if learner:
        yield (
            f"config.loss.token_reward={quote(name)}: {learner}, not from advantages, which alone hold rewards of "
            f"tokens; use a loss with advantages, such as dr_grpo"
        )
    try:
        losses.load_token_reward(name)
    except ValueError as error:
        yield f"config.loss.token_reward: {error}"


def _row_faults(config: Settings, loss: Loss) -> Iterator[str]:
    given, J = config.packing.row_tokens, losses.UNITS[loss.unit]
    shared = config.prompts_are_shared
    needed = row_tokens_needed(config.data.max_prompt_tokens, config.rollout.max_answer_tokens, J, shared)
    if 0 < given < needed:
        parts = "max_answer_tokens" if shared else "(max_prompt_tokens + max_answer_tokens − 1)"
        yield (
            f"config.packing.row_tokens={given}: one {loss.unit} of loss {loss.name!r} can take {needed} = "
            f"{'2 × ' * (J - 1)}{parts} tokens; use at least {needed}, or 0 for just that"
        )
