"""Settings that change nothing beside others, which a run names at its start.

Settings that contradict one another are refused (`checks.py`). Options of what is switched off are not: the config file
that holds them may be meant for other commands too.
"""

from collections.abc import Iterator

from nft_jax import losses
from nft_jax.config.host_sections import CompareConfig
from nft_jax.config.setting import settings_of, value_of
from nft_jax.config.settings import Settings
from nft_jax.names import quote

_WARM_START = tuple(each.name for each in settings_of(Settings) if each.name.startswith("warm_start."))
_ROPE = {
    "factor": ("linear", "llama3", "yarn"),
    "original_tokens": ("llama3", "yarn"),
    **dict.fromkeys(("low_frequency", "high_frequency"), ("llama3",)),
    **dict.fromkeys(("beta_fast", "beta_slow", "truncate", "attention_factor"), ("yarn",)),
}


def describe_idle(config: Settings) -> list[str]:
    """Returns a line for each setting that has others changing nothing: these, where they are not at their defaults."""
    lines = _describe(config, _rules(config))
    if config.distillation.terms and config.distillation.alone:
        usual = losses.default_options(config.loss.name)
        given = [name for name, value in config.loss.options.items() if usual.get(name) != value]
        lines += [f"config.loss.{config.loss.name}.{name}: no effect with distillation.alone=true" for name in given]
    return lines


def describe_idle_in_study(config: Settings) -> list[str]:
    """Returns the same of the section `compare`, which a study alone reads."""
    return _describe(config, _study_rules(config.compare))


def _describe(config: Settings, rules: Iterator[tuple[str, tuple[str, ...]]]) -> list[str]:
    lines, defaults = [], {each.name: each.default for each in settings_of(Settings)}
    for reason, names in rules:
        given = {name: value for name in names if (value := value_of(config, name)) != defaults[name]}
        if given:
            listed = ", ".join(f"config.{name}={quote(value, 40)}" for name, value in given.items())
            lines.append(f"{listed}: no effect with {reason}")
    return lines


def _study_rules(section: CompareConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    if section.updates:
        yield f"compare.updates={section.updates}", ("compare.sampled_tokens",)
    if "," not in section.learning_rates.strip(", "):
        yield f"compare.learning_rates={quote(section.learning_rates)}, which is one rate", ("compare.tuning_seeds",)


def _rules(config: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields a setting, with its value, and the names of those that change nothing beside it."""
    yield from _loss_rules(config)
    data, model, rollout = config.data, config.model, config.rollout
    scaling = model.rope_scaling.kind
    idle = tuple(f"model.rope_scaling.{name}" for name, kinds in _ROPE.items() if scaling not in kinds)
    yield f"model.rope_scaling.kind={scaling}", idle
    if "w" not in model.layer_kinds:
        yield f"model.layer_kinds={model.layer_kinds}", ("model.window_rope_theta",)
    if not config.lora.rank:
        yield "lora.rank=0", ("lora.alpha", "lora.targets")
    if rollout.partial:
        of_halving = "rollout.max_halvings", "rollout.halving_steps"
        yield "rollout.partial=true", (*of_halving, "selection.begin_next_round")
    else:
        yield "rollout.partial=false", ("rollout.max_age_steps",)
        if not rollout.max_halvings:
            yield "rollout.max_halvings=0", ("rollout.halving_steps",)
    if config.mesh.tensor == 1:
        yield "mesh.tensor=1", ("mesh.sequence_parallel",)
    for section in ("", "warm_start."):
        if not value_of(config, f"{section}optimizer.warmup_updates"):
            yield f"{section}optimizer.warmup_updates=0", (f"{section}optimizer.warmup_stair",)
    if config.base:
        yield f"base={config.base}", _WARM_START
    elif not config.warm_start.steps:
        yield "warm_start.steps=0", _WARM_START
    if not any("arithmetic" in name for name in (data.train or "arithmetic", data.validation, data.test, data.exclude)):
        reason = f"data.train={data.train}"
        yield reason, ("data.arithmetic_max_operand", "warm_start.arithmetic_examples", "warm_start.incorrect_share")
    if data.validation:
        yield f"data.validation={data.validation}", ("data.validation_size",)
    else:
        yield "data.validation=''", ("data.validation_fields",)


def _loss_rules(config: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    loss, correction = config.resolve_loss(), config.loss.correction
    bounds = {"none": ("loss.correction_low", "loss.correction_high")}
    bounds |= dict.fromkeys(("tis", "tis_answer"), ("loss.correction_low",))
    yield f"loss.correction={correction}", bounds.get(correction, ())
    if not config.loss.kl_weight:
        yield "loss.kl_weight=0", ("loss.kl",)
    normalizer = config.loss.normalizer or loss.normalizer
    if normalizer != "constant":
        yield f"the normalizer {normalizer}", ("loss.constant_tokens",)
    idle = {"all": ("selection.rate_above", "selection.rate_below"), "some_incorrect": ("selection.rate_above",)}
    yield f"loss {loss.name}, whose groups are {loss.groups}", idle.get(loss.groups, ())
    if not config.distillation.teacher:
        yield "distillation.teacher=''", ("distillation.weight", "distillation.kl")
