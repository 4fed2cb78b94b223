"""The plan of a comparison: its variants (each loss in each regime), seeds and learning rates."""

import ast
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nft_jax import losses
from nft_jax.config import Config, LossConfig, settings_of
from nft_jax.names import lookup, quote

# Each seed has its own stretch of the endless stream of prompts and draws. A run here draws fewer prompts than this.
PROMPTS_PER_SEED = 2**18


class Variant(NamedTuple):
    """A loss in a regime.

    Attributes:
      loss: the loss with its options, as in `config.compare.losses`.
      updates: number of updates a rollout.
    """

    loss: str
    updates: int

    @property
    def regime(self) -> str:
        """The number of updates in words."""
        return "strictly on-policy" if self.updates == 1 else f"{self.updates} updates a rollout"

    def config(self, config: Config) -> Config:
        """Returns this variant's config; an update keeps its numbers of prompts and of candidates.

        Raises:
          ValueError: if the loss does not exist, or does not fit the other settings.
        """
        before, strict = config.updates_per_step, self.updates == 1
        return dataclasses.replace(
            config,
            loss=read_loss(self.loss, config.loss),
            updates_per_step=self.updates,
            prompts_per_step=config.prompts_per_step // before * self.updates,
            strict_on_policy=strict,
            old_logp="current" if strict else "sampler",
            selection=dataclasses.replace(
                config.selection, candidates_per_round=config.candidates_per_round * self.updates // before
            ),
            # The rate is in the optimizer's state (`runs.with_rate`).
            optimizer=dataclasses.replace(config.optimizer, learning_rate=1.0),
        )


class Budget(NamedTuple):
    """When a run ends.

    Attributes:
      of: what is counted, a field of `runs.Cost`: "tokens" (sampled ones) or "updates".
      amount: the count at which a run ends, as near as whole steps allow.
    """

    of: str
    amount: int

    @property
    def words(self) -> str:
        """The budget of a run, for a reader."""
        return f"{self.amount:,} {self.noun}"

    @property
    def noun(self) -> str:
        """What is counted, in words."""
        return "sampled tokens" if self.of == "tokens" else self.of


class Plan(NamedTuple):
    """The runs of a comparison.

    Attributes:
      variants: all variants; the others are compared with the first.
      seeds: seeds that are reported.
      tuning_seeds: seeds on which the learning rate is chosen.
      rates: learning rates to choose from.
      budget: when each run ends.
    """

    variants: list[Variant]
    seeds: list[int]
    tuning_seeds: list[int]
    rates: list[float]
    budget: Budget

    @property
    def runs(self) -> int:
        """The number of runs."""
        tuning = len(self.tuning_seeds) * len(self.rates) if len(self.rates) > 1 else 0
        return len(self.variants) * (len(self.seeds) + tuning)


def read_plan(config: Config) -> Plan:
    """Reads the plan from `config.compare`, and checks the config of every variant.

    Raises:
      ValueError: for values that can't be read, unknown losses, repetitions, and plans that can't be carried out.
    """
    section = config.compare
    names = _parse_list(section.losses.replace("\n", ";"), ";", "losses", lambda text: " ".join(text.split()))
    updates = _parse_list(section.updates_per_rollout, ",", "updates_per_rollout", int)
    seeds = _parse_list(section.seeds, ",", "seeds", int)
    tuning = _parse_list(section.tuning_seeds, ",", "tuning_seeds", int) if section.tuning_seeds.strip() else []
    rates = _parse_list(section.learning_rates or f"{config.optimizer.learning_rate}", ",", "learning_rates", float)
    budget = Budget("updates", section.updates) if section.updates else Budget("tokens", section.sampled_tokens)
    plan = Plan([Variant(name, count) for count in updates for name in names], seeds, tuning, rates, budget)
    for fault in _faults(config, plan, updates):
        raise ValueError(fault)
    for variant in plan.variants:
        variant.config(config)
    return plan


def _faults(config: Config, plan: Plan, updates: list[int]) -> Iterator[str]:
    """Yields what keeps the plan from being carried out."""
    most = 2**31 // PROMPTS_PER_SEED // config.answers_per_prompt
    for setting, values in (("seeds", plan.seeds), ("tuning_seeds", plan.tuning_seeds)):
        if not all(0 <= seed < most for seed in values):
            yield f"config.compare.{setting}={values}: use seeds from 0 to {most - 1}"
    if both := set(plan.seeds) & set(plan.tuning_seeds):
        yield f"config.compare.tuning_seeds: {sorted(both)} are reported too; choose rates on seeds that are not"
    if len(plan.rates) > 1 and not plan.tuning_seeds:
        yield (
            f"config.compare.learning_rates={config.compare.learning_rates!r}: choosing among several rates needs "
            "config.compare.tuning_seeds, which is empty; give seeds that are not reported, or one rate"
        )
    for name, one, values in (
        ("learning_rates", "optimizer.learning_rate", plan.rates),
        ("updates_per_rollout", "updates_per_step", updates),
    ):
        setting = next(setting for setting in settings_of(Config) if setting.name == one)
        if not all(setting.fault(value) is None for value in values):
            yield f"config.compare.{name}={quote(getattr(config.compare, name))}: each must be {setting.allowed}"
    if config.optimizer.schedule != "constant":
        yield (
            f"config.optimizer.schedule={config.optimizer.schedule!r}: a run ends when it has sampled its tokens, so "
            "the number of updates, over which the rate would decay, is not known; use constant"
        )


def read_loss(text: str, others: LossConfig = LossConfig()) -> LossConfig:  # noqa: B008
    """Reads a loss from `NAME [OPTION=VALUE …]`; other options, and the normalizer, are those of the loss.

    An option may also be `normalizer` or one of `losses.Additions`, such as entropy_weight. All other settings of the
    section, such as constant_tokens, are those of `others`.

    Raises:
      ValueError: for an unknown loss or option.
    """
    name, *words = text.split()
    options = losses.default_options(name)
    additions = {field.name: field.default for field in dataclasses.fields(losses.Additions)} | {"normalizer": ""}
    changes: dict[str, Any] = {}
    added: dict[str, Any] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"config.compare.losses: {word!r} in {text!r} is not of the form OPTION=VALUE")
        if option in additions and option not in options:
            added[option] = _parse_value(value, additions[option])
        else:
            changes[option] = _parse_value(value, lookup(options, option, "option", f"loss {name!r}"))
    return dataclasses.replace(others, name=name, options=options | changes, **{"normalizer": ""} | added)


def _parse_value(text: str, default: Any) -> Any:
    """Reads a value of the default's type; returns other text as it is, which the loss then refuses."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if isinstance(default, bool) else text)
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        return text
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _parse_list(text: str, separator: str, setting: str, kind: Callable[[str], Any]) -> list[Any]:
    """Reads values of a kind, each of which may be given once.

    Raises:
      ValueError: if there is no value, a repeated one, or one of another kind.
    """
    parts = [part.strip() for part in text.split(separator) if part.strip()]
    try:
        values = [kind(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"config.compare.{setting}={text!r}: {error}; separate values by {separator!r}") from error
    if not values or len(set(values)) < len(values):
        raise ValueError(f"config.compare.{setting}={text!r}: give at least one value, and each once")
    return values
