"""The traits that a loss declares, and the lookup of a loss by the name and options in a config.

A loss's options are its keyword-only parameters and those of its advantage function; the signatures hold their
defaults.
"""

import dataclasses
import functools
import importlib
import inspect
import numbers
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import centered
from nft_jax.losses.reduce import NORMALIZERS
from nft_jax.names import lookup, quote, unknown
from nft_jax.types import Array, LossBatch

# Answers of a unit.
UNITS = {"answer": 1, "pair": 2}
GROUPS = ("mixed", "all")
_LARGEST = float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What the trainer must know about a loss besides its formula.

    Attributes:
      unit: What minibatches and packing never separate: "answer", or "pair" (correct, incorrect) of a group.
      normalizer: Name in `reduce.NORMALIZERS`.
      groups: Groups that train: "mixed" (0 < rate < 1) or "all".
      advantage: `(correct_QK, length_QK, max_answer_tokens, *, …) -> advantage_QK`.
    """

    unit: str = "answer"
    normalizer: str = "constant"
    groups: str = "mixed"
    advantage: Callable[..., Array] = centered

    def __post_init__(self):
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
      unit, normalizer, groups: As in `Traits`.
    """

    name: str
    function: Callable[[Array, LossBatch], Array]
    advantage: Callable[[Array, Array, int], Array]
    unit: str
    normalizer: str
    groups: str


def declare(
    *,
    unit: str = "answer",
    normalizer: str = "constant",
    groups: str = "mixed",
    advantage: Callable[..., Array] = centered,
) -> Callable:
    """Returns a decorator that attaches `Traits` to a loss function.

    Raises:
      ValueError: for an unknown unit, normalizer or choice of groups.
    """
    traits = Traits(unit, normalizer, groups, advantage)

    def attach(function):
        function.traits = traits
        return function

    return attach


def find(name: str, known: Mapping[str, Callable]) -> Callable:
    """Returns the function called `name` in `known`, or the one that "module:function" imports.

    Raises:
      ValueError: for a name that is neither, a module that can't be imported, or one without the function.
    """
    if ":" not in name:
        if name not in known:
            raise ValueError(f"{unknown('loss', name, known)} (a loss of your own is written 'module:function')")
        return known[name]
    parts = name.split(":")
    if len(parts) != 2 or not parts[1].isidentifier() or not all(part.isidentifier() for part in parts[0].split(".")):
        raise ValueError(f"loss {quote(name)}: write 'module:function', for example 'my_package.my_losses:my_loss'")
    try:
        module = importlib.import_module(parts[0])
    except ImportError as error:
        raise ValueError(
            f"loss {quote(name)}: module {quote(parts[0])} can't be imported ({error}); "
            "write 'module:function' with a module that is installed or on PYTHONPATH"
        ) from error
    functions = {key: value for key, value in vars(module).items() if callable(value)}
    return lookup(functions, parts[1], "function", f"module {parts[0]!r}")


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
    own, advantages = _keyword_only(function), _keyword_only(traits.advantage)
    if shared := own.keys() & advantages.keys():
        raise ValueError(f"loss {name!r}: {sorted(shared)} are options of both the loss and its advantage; rename one")
    parameters = own | advantages
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
    loss = Loss(
        name,
        functools.partial(function, **{key: value for key, value in options.items() if key in own}),
        functools.partial(traits.advantage, **{key: value for key, value in options.items() if key in advantages}),
        traits.unit,
        traits.normalizer,
        traits.groups,
    )
    _check_results(loss)
    return loss


def defaults(function: Callable) -> dict[str, object]:
    """Returns the options of a loss and of its advantage that have a default, with the default."""
    parameters = _keyword_only(function) | _keyword_only(traits_of(function).advantage)
    return {key: value for key, value in parameters.items() if value is not inspect.Parameter.empty}


def _keyword_only(function: Callable) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _same_kind(value: object, default: object) -> bool:
    # bool first: to Python, True is an int.
    for kind, accepted in ((bool, bool), (str, str), (int, numbers.Integral), (float, numbers.Real)):
        if isinstance(default, kind):
            return isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
    return True


def _check_results(loss: Loss) -> None:
    # Functions check their options in their first lines: tracing them here raises before anything compiles.
    floats = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    batch = LossBatch(floats, ids, floats, floats, floats, ids)
    no_limit = 2**30
    for what, result in (
        ("the loss", jax.eval_shape(loss.function, floats, batch)),
        ("its advantage", jax.eval_shape(lambda *group: loss.advantage(*group, no_limit), floats, ids)),
    ):
        found = (getattr(result, "shape", None), getattr(result, "dtype", None))
        if found != (floats.shape, floats.dtype):
            raise ValueError(f"loss {loss.name!r}: {what} gave {result} for inputs of shape (2, 3); want float32[2,3]")
