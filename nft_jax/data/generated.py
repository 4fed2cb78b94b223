"""Sets of generated problems, which config.data.train, validation and test name like any other set.

A set is one entry of `GENERATED`: a function of the data settings that returns its problems by split. `NAME` in a
setting means the split of that setting, `NAME:test` the split "test".
"""

from collections.abc import Callable

from nft_jax.config import DataConfig
from nft_jax.data import arithmetic, word_problems
from nft_jax.data.files import Problem
from nft_jax.names import lookup

ARITHMETIC = "arithmetic"


def _generate_arithmetic(data: DataConfig) -> dict[str, list[Problem]]:
    return arithmetic.split(arithmetic.all_problems(data.arithmetic_max_operand))


def _generate_word_problems(data: DataConfig) -> dict[str, list[Problem]]:
    return {split: word_problems.generate(split, size) for split, size in word_problems.SIZES.items()}


GENERATED: dict[str, Callable[[DataConfig], dict[str, list[Problem]]]] = {
    ARITHMETIC: _generate_arithmetic,
    "word_problems": _generate_word_problems,
}


def is_generated(name: str) -> bool:
    """Returns whether a name, with or without a split, is that of a generated set."""
    return name.partition(":")[0] in GENERATED


def generate(name: str, data: DataConfig, split: str) -> list[Problem]:
    """Generates a split of a set: the one that the name gives, else `split`.

    Raises:
      ValueError: if the set has no such split.
    """
    name, _, own = name.partition(":")
    return lookup(GENERATED[name](data), own or split, "split", name)
