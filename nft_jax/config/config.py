"""One experiment whose settings fit together."""

import dataclasses
from typing import Any

from nft_jax.config.checks import check
from nft_jax.config.settings import Settings


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """The settings of one experiment, checked when they are made, also by `dataclasses.replace`.

    Raises:
      ValueError: with every fault that `check` finds; or where old_logp is "auto", which `load` replaces.
    """

    def __post_init__(self):
        if self.old_logp == "auto":
            raise ValueError("old_logp='auto' is for config files, whose `load` replaces it; give another choice")
        check(self)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as plain JSON values, which `config.json` of a run holds."""
    return dataclasses.asdict(config)
