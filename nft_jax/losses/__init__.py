"""The losses by name: `loss(logp_BT, batch, *, options…) -> loss_BT`, one value per token, without the model."""

from collections.abc import Mapping

from nft_jax.losses.contrast import contrast
from nft_jax.losses.dapo import dapo
from nft_jax.losses.dpo import dpo
from nft_jax.losses.grpo import dr_grpo, grpo
from nft_jax.losses.nft import nft, ratio_statistics
from nft_jax.losses.reduce import NORMALIZERS, answer_sum, total_loss
from nft_jax.losses.registry import UNITS, Loss, Traits, bind, declare, defaults, find
from nft_jax.losses.rft import rft

__all__ = [
    "LOSSES",
    "NORMALIZERS",
    "UNITS",
    "Loss",
    "Traits",
    "answer_sum",
    "declare",
    "default_options",
    "ratio_statistics",
    "resolve",
    "total_loss",
    *("contrast", "dapo", "dpo", "dr_grpo", "grpo", "nft", "rft"),
]

LOSSES = {each.__name__: each for each in (nft, rft, grpo, dr_grpo, dapo, dpo, contrast)}


def resolve(name: str, options: Mapping[str, object]) -> Loss:
    """Returns the loss called `name` with its options bound: a key of `LOSSES`, or "module:function".

    A function that declares no traits gets unit "answer", normalizer "constant", groups "mixed", advantage `centered`.

    Raises:
      ValueError: for an unknown name, an unknown option, or a value out of range; before anything compiles.
    """
    return bind(name, find(name, LOSSES), options)


def default_options(name: str) -> dict[str, object]:
    """Returns the options of a loss and of its advantage with their defaults, from the signatures."""
    return defaults(find(name, LOSSES))
