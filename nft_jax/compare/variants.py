"""What a comparison compares: each loss in each regime, and the seeds and learning rates that it gets."""

import ast
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from nft_jax import losses
from nft_jax.config import Config, LossConfig
from nft_jax.names import lookup

# Prompts of the endless stream of (prompts, draws) that a seed has for itself: more than any run here draws.
STRETCH = 2**18


class Variant(NamedTuple):
    """A loss with its options, as the config writes it, and the number of updates a rollout."""

    loss: str
    updates: int

    @property
    def regime(self) -> str:
        """The number of updates, in words."""
        return "strictly on-policy" if self.updates == 1 else f"{self.updates} updates a rollout"

    def config(self, config: Config) -> Config:
        """The experiment of this arm: the prompts of an update, and the candidates for it, stay those of `config`.

        Raises:
          ValueError: when the loss is none, or does not fit the rest.
        """
        before, strict = config.updates_per_step, self.updates == 1
        return dataclasses.replace(
            config,
            loss=read_loss(self.loss),
            updates_per_step=self.updates,
            prompts_per_step=config.prompts_per_step // before * self.updates,
            strict_on_policy=strict,
            old_logp="current" if strict else "sampler",
            selection=dataclasses.replace(
                config.selection, candidates_per_round=config.candidates_per_round * self.updates // before
            ),
            # The optimizer of a comparison has its rate in its state (`runs.py`).
            optimizer=dataclasses.replace(config.optimizer, learning_rate=1.0),
        )


class Plan(NamedTuple):
    """All arms, the one that the others are compared with first, and what each runs on."""

    arms: list[Variant]
    seeds: list[int]
    tuning_seeds: list[int]
    rates: list[float]

    @property
    def runs(self) -> int:
        """How many there are to do."""
        tuning = len(self.tuning_seeds) * len(self.rates) if len(self.rates) > 1 else 0
        return len(self.arms) * (len(self.seeds) + tuning)


def read_plan(config: Config) -> Plan:
    """The plan that `config.compare` writes, with every arm's experiment checked.

    Raises:
      ValueError: for what is no number, no loss, given twice or can't be compared so; all before anything compiles.
    """
    given = config.compare
    names = _items(given.losses.replace("\n", ";"), ";", "losses", lambda text: " ".join(text.split()))
    updates = _items(given.updates_per_rollout, ",", "updates_per_rollout", int)
    seeds = _items(given.seeds, ",", "seeds", int)
    tuning = _items(given.tuning_seeds, ",", "tuning_seeds", int) if given.tuning_seeds.strip() else []
    rates = _items(given.learning_rates or f"{config.optimizer.learning_rate}", ",", "learning_rates", float)
    plan = Plan([Variant(name, count) for count in updates for name in names], seeds, tuning, rates)
    for fault in _faults(config, plan, updates):
        raise ValueError(fault)
    for arm in plan.arms:
        arm.config(config)
    return plan


def _faults(config: Config, plan: Plan, updates: list[int]):
    most = 2**31 // STRETCH // config.answers_per_prompt
    for setting, values in (("seeds", plan.seeds), ("tuning_seeds", plan.tuning_seeds)):
        if not all(0 <= seed < most for seed in values):
            yield f"config.compare.{setting}={values}: use seeds from 0 to {most - 1}"
    if both := set(plan.seeds) & set(plan.tuning_seeds):
        yield f"config.compare.tuning_seeds: {sorted(both)} are reported too; choose rates on seeds that are not"
    if len(plan.rates) > 1 and not plan.tuning_seeds:
        yield (
            f"config.compare.learning_rates={config.compare.learning_rates!r}: several rates are chosen from on "
            "config.compare.tuning_seeds, and there are none; give seeds that are not reported, or one rate"
        )
    if not all(rate > 0 for rate in plan.rates):
        yield f"config.compare.learning_rates={config.compare.learning_rates!r}: must be positive"
    if not all(count > 0 for count in updates):
        yield f"config.compare.updates_per_rollout={config.compare.updates_per_rollout!r}: must be positive"
    if config.optimizer.schedule != "constant":
        yield (
            f"config.optimizer.schedule={config.optimizer.schedule!r}: a run ends when its tokens are used up, so the "
            "number of updates that it would decay over isn't known; use constant"
        )


def read_loss(text: str) -> LossConfig:
    """The loss that is written as `NAME [OPTION=VALUE …]`; options that are not given have the loss's defaults.

    Raises:
      ValueError: for an unknown loss or option, or a value of another kind.
    """
    name, *words = text.split()
    options, normalizer = losses.default_options(name), ""
    given: dict[str, Any] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"config.compare.losses: {word!r} in {text!r} is no OPTION=VALUE")
        if option == "normalizer":
            normalizer = value
        else:
            given[option] = _value(value, lookup(options, option, "option", f"loss {name!r}"))
    return LossConfig(name=name, normalizer=normalizer, options=options | given)


def _value(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if isinstance(default, bool) else text)
    except (SyntaxError, ValueError):
        return text  # whose kind the loss then refuses
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _items(text: str, between: str, setting: str, kind: Callable[[str], Any]) -> list[Any]:
    parts = [part.strip() for part in text.split(between) if part.strip()]
    try:
        values = [kind(part) for part in parts]
    except ValueError as error:
        raise ValueError(
            f"config.compare.{setting}={text!r}: {error}; write values with {between!r} between"
        ) from error
    if not values or len(set(values)) < len(values):
        raise ValueError(f"config.compare.{setting}={text!r}: give at least one, and each once")
    return values
