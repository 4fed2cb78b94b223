"""The traits that a loss declares, and the lookup of a loss by the name and options in a config.

A loss's options are its keyword-only parameters and those of its advantage function; the signatures hold their
defaults.
"""

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import centered
from nft_jax.losses.reduce import NORMALIZERS
from nft_jax.names import lookup, quote, unknown
from nft_jax.own_code import OwnCodeError, check_call, describe_error, is_own, load
from nft_jax.types import Array, LossBatch

# The loss of each token, and the loss's own metrics of each token.
Measured = tuple[Array, dict[str, Array]]
# Answers of a unit.
UNITS = {"answer": 1, "pair": 2}
# Groups with 0 < rate < 1; all; those with an incorrect answer.
GROUPS = ("mixed", "all", "some_incorrect")
# Optional fields of `LossBatch`, without their suffix.
READS = (
    "sampler_logp",
    "entropy",
    "truncated",
    "length",
    "complete",
    "graded",
    "token_reward",
    "teacher_logp",
    "key",
    "choice",
)
NO_LIMIT = 2**30
_LARGEST = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What the trainer must know about a loss besides its formula.

    Attributes:
      unit: What minibatches and packing never separate: "answer", or "pair" (correct, incorrect) of a group.
      normalizer: Name in `reduce.NORMALIZERS`.
      groups: Groups that train: "mixed" (0 < rate < 1), "all", or "some_incorrect" (rate < 1).
      advantage: `(correct_QK, length_QK, max_answer_tokens, *, …) -> advantage_QK`.
      reads: Names in `READS`: the optional fields of the batch that the loss, or `prepare`, needs.
      prepare: None, or `(logp_BT, batch, *, …) -> batch`, called once an update with the rows of all micro-batches and
        data shards; the loss gets its batch. The denominators count what it leaves (`whole_batch.reject`). It sees no
        entropies: `entropy_BT` is None.
      forward: Whether `prepare` gets the policy's log-probs, which cost one more forward pass; else `logp_BT` is None.
      by_verdicts: Whether it learns from verdicts and rates, not from advantages, so that rewards between 0 and 1 have
        no meaning for it: groups are then chosen by the rate too.
    """

    unit: str = "answer"
    normalizer: str = "constant"
    groups: str = "mixed"
    advantage: Callable[..., Array] = centered
    reads: tuple[str, ...] = ()
    prepare: Callable[..., LossBatch] | None = None
    forward: bool = False
    by_verdicts: bool = False

    def __post_init__(self):
        for name in self.reads:
            lookup(dict.fromkeys(READS), name, "field that a loss reads")
        for kind, given, known in (
            ("unit", self.unit, UNITS),
            ("normalizer", self.normalizer, NORMALIZERS),
            ("groups", self.groups, GROUPS),
        ):
            if given not in known:
                raise ValueError(unknown(kind, given, known))


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss ready for use, with its options bound.

    Attributes:
      name: The name in the config.
      function: `(logp_BT, batch) -> loss_BT`.
      advantage: `(correct_QK, length_QK, max_answer_tokens) -> advantage_QK`.
      unit, normalizer, groups, reads, forward, by_verdicts: As in `Traits`.
      prepare: `(logp_BT, batch) -> batch`, or None.
      measured: `(logp_BT, batch) -> (loss_BT, {name: value_BT})` of a loss with metrics of its own, or None.
      metrics: The names of these metrics.
    """

    name: str
    function: Callable[[Array, LossBatch], Array]
    advantage: Callable[[Array, Array, int], Array]
    unit: str
    normalizer: str
    groups: str
    reads: tuple[str, ...] = ()
    prepare: Callable[[Array | None, LossBatch], LossBatch] | None = None
    forward: bool = False
    by_verdicts: bool = False
    measured: Callable[[Array, LossBatch], Measured] | None = None
    metrics: tuple[str, ...] = ()

    def evaluate(self, logp_BT: Array, batch: LossBatch) -> Measured:
        """Returns the loss of each token and the loss's own metrics, which are averaged over answer tokens."""
        return (self.function(logp_BT, batch), {}) if self.measured is None else self.measured(logp_BT, batch)


def declare(**traits: Any) -> Callable:
    """Returns a decorator that attaches `Traits` with these fields to a loss function.

    Raises:
      ValueError: for an unknown unit, normalizer, choice of groups, or field that is read.
    """
    attached = Traits(**traits)

    def attach(function):
        function.traits = attached
        return function

    return attach


def find(name: str, known: Mapping[str, Callable], kind: str = "loss") -> Callable:
    """Returns the function called `name` in `known`, or the one that "module:function" imports.

    Raises:
      ValueError: for a name that is neither, a module that can't be imported, one without the function, or a function
        of other arguments.
    """
    if ":" not in name:
        if name not in known:
            raise ValueError(f"{unknown(kind, name, known)} (your own {kind} is written 'module:function')")
        return known[name]
    function = load(name, kind)
    if kind == "loss":
        check_call(function, name, kind, "loss(logp_BT, batch)")
    return function


def traits_of(function: Callable) -> Traits:
    """Returns the declared traits of a loss, or the default ones of a function that declares none."""
    return getattr(function, "traits", Traits())


def bind(name: str, function: Callable, options: Mapping[str, object]) -> Loss:
    """Binds a loss's options to it and its advantage, and tries both on shapes alone.

    Raises:
      ValueError: for an unknown or missing option, a value of another type than the default's, a value that the
        functions refuse, or a result that isn't one float32 per token.
    """
    traits = traits_of(function)
    parts = _parts(function)
    parameters: dict[str, object] = {}
    for part in parts:
        if shared := parameters.keys() & _keyword_only(part).keys():
            raise ValueError(
                f"loss {name!r}: {sorted(shared)} are options of both the loss and its advantage or prepare; rename one"
            )
        parameters |= _keyword_only(part)
    for option, value in options.items():
        default = lookup(parameters, option, "option", f"loss {name!r}")
        if not _same_kind(value, default):
            kind = type(default).__name__
            raise ValueError(
                f"option {option!r} of loss {name!r} is of type {kind}, not {type(value).__name__}: {quote(value)}"
            )
    for option, value in options.items():
        if not isinstance(value, bool | str) and isinstance(value, numbers.Real) and not abs(value) <= _LARGEST:
            raise ValueError(
                f"option {option!r} of loss {name!r} is {quote(value)}: it must be a number from -{_LARGEST:g} to "
                f"{_LARGEST:g}"
            )
    if missing := [option for option, default in (parameters | options).items() if default is inspect.Parameter.empty]:
        raise ValueError(f"loss {name!r} needs a value for {', '.join(missing)}")

    def with_options(part):
        own = _keyword_only(part)
        return functools.partial(part, **{key: value for key, value in options.items() if key in own})

    loss = Loss(
        name,
        with_options(function),
        with_options(traits.advantage),
        traits.unit,
        traits.normalizer,
        traits.groups,
        traits.reads,
        traits.prepare and with_options(traits.prepare),
        traits.forward,
        traits.by_verdicts,
    )
    return check_results(loss)


def defaults(function: Callable) -> dict[str, object]:
    """Returns the options of a loss, its advantage and its `prepare` that have a default, with the default."""
    parameters = {key: value for part in _parts(function) for key, value in _keyword_only(part).items()}
    return {key: value for key, value in parameters.items() if value is not inspect.Parameter.empty}


def _parts(function: Callable) -> list[Callable]:
    """Returns the functions whose options are the loss's options."""
    traits = traits_of(function)
    return [function, traits.advantage, *([traits.prepare] if traits.prepare else [])]


def _keyword_only(function: Callable) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _same_kind(value: object, default: object) -> bool:
    # bool first: to Python, True is an int.
    for kind, accepted in ((bool, bool), (str, str), (int, numbers.Integral), (float, numbers.Real)):
        if isinstance(default, kind):
            return isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
    return True


def check_results(loss: Loss) -> Loss:
    """Traces a loss on shapes alone, and returns it with its metrics separated from its result.

    Functions check their options in their first lines: tracing them here raises before anything compiles.

    Raises:
      ValueError: for a result that isn't one float32 per token, or a loss that reads what it does not declare.
    """
    floats = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (2, 3)))
    optional = {f"{name}_BT": keys if name == "key" else floats for name in loss.reads}
    batch = LossBatch(floats, ids, floats, floats, floats, ids, **optional)
    if loss.prepare is not None:
        prepare = loss.prepare if loss.forward else functools.partial(loss.prepare, None)
        inputs = batch._replace(entropy_BT=None)
        prepared = _trace(loss, prepare, *([floats] if loss.forward else []), inputs)
        if jax.tree.map(lambda x: (x.shape, x.dtype), prepared) != jax.tree.map(lambda x: (x.shape, x.dtype), inputs):
            raise ValueError(f"loss {loss.name!r}: prepare gave {prepared}, not a batch of the shapes of {inputs}")
    result, metrics = _trace(loss, loss.measured or loss.function, floats, batch), {}
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        (result, metrics), function = result, loss.measured or loss.function
        loss = dataclasses.replace(
            loss, function=functools.partial(_first, function), measured=function, metrics=tuple(sorted(metrics))
        )
    advantage = _trace(loss, lambda *group: loss.advantage(*group, NO_LIMIT), floats, ids)
    named = {"the loss": result, "its advantage": advantage} | {f"its metric {key!r}": x for key, x in metrics.items()}
    for what, found in named.items():
        if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (floats.shape, floats.dtype):
            raise ValueError(f"loss {loss.name!r}: {what} gave {found} for inputs of shape (2, 3); want float32[2,3]")
    return loss


def _trace(loss: Loss, function: Callable, *inputs: Any) -> Any:
    """Returns the shapes of a function's results; an error becomes one sentence with its place in a user's own code.

    A read that isn't declared is blamed for an error with None.
    """
    try:
        return jax.eval_shape(function, *inputs)
    except (Exception, SystemExit) as error:
        if isinstance(error, AttributeError | TypeError) and "None" in str(error):
            raise ValueError(
                f"loss {loss.name!r} fails on a field that is None ({error}); it reads {list(loss.reads)}, and "
                f"declares others of {', '.join(READS)} by @declare(reads=(…))"
            ) from error
        if ":" not in loss.name and not is_own(error):
            raise
        raise OwnCodeError(f"loss {loss.name!r}: {describe_error(error)}") from error


def _first(measured: Callable, logp_BT: Array, batch: LossBatch) -> Array:
    return measured(logp_BT, batch)[0]
