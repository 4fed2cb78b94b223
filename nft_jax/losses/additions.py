"""What any loss can be combined with: a correction of the sampler's gap, truncation masking, and an entropy bonus."""

import dataclasses

import jax.numpy as jnp

from nft_jax.losses.corrections import CORRECTIONS, log_gap
from nft_jax.losses.registry import Loss, Measured, check_results
from nft_jax.losses.whole_batch import reject
from nft_jax.names import lookup
from nft_jax.types import Array, LossBatch

NO_CORRECTION = "none"
LARGEST = 1e6


@dataclasses.dataclass(frozen=True)
class Additions:
    """Additions to a loss.

    Attributes:
      correction: `NO_CORRECTION`, or a name in `corrections.CORRECTIONS`.
      correction_low, correction_high: The bounds of the correction.
      mask_truncated: Whether truncated answers are left out, before the denominators are counted.
      entropy_weight: Number that multiplies the entropy of each token, which is subtracted from its loss.
    """

    correction: str = NO_CORRECTION
    correction_low: float = 0.5
    correction_high: float = 2.0
    mask_truncated: bool = False
    entropy_weight: float = 0.0


def extend(loss: Loss, additions: Additions) -> Loss:
    """Returns the loss with additions; without any, the loss itself.

    loss = weight(gap) · loss − entropy_weight · entropy

    Truncation masking: Yu et al., arXiv 2503.14476, overlong filtering. Entropy bonus: Williams and Peng,
    "Function optimization using connectionist reinforcement learning algorithms" (1991).

    Raises:
      ValueError: for an unknown correction, bounds without room, or a loss of pairs whose answers would be left out.
    """
    low, high = additions.correction_low, additions.correction_high
    for name in ("correction_low", "correction_high", "entropy_weight"):
        if not 0 <= getattr(additions, name) <= LARGEST:
            raise ValueError(f"{name}={getattr(additions, name)} must be from 0 to {LARGEST:g}")
    correction = None
    if additions.correction != NO_CORRECTION:
        correction = lookup(CORRECTIONS, additions.correction, "correction")
        if not low < high:
            raise ValueError(f"correction_low={low} must be below correction_high={high}")
    if correction is None and not additions.mask_truncated and not additions.entropy_weight:
        return loss
    if loss.unit != "answer" and (correction or additions.mask_truncated):
        raise ValueError(
            f"loss {loss.name!r} learns from pairs, whose answers can't be weighed or left out one by one; use "
            f"correction={NO_CORRECTION} and mask_truncated=false"
        )
    rejects = additions.mask_truncated or (correction and correction.keep)

    def evaluate(logp_BT: Array, batch: LossBatch) -> Measured:
        loss_BT, metrics = loss.evaluate(logp_BT, batch)
        inside_BT = batch.answer_BT >= 0
        if correction:
            gap_BT = log_gap(batch)
            weight_BT = correction.weigh(gap_BT, batch.answer_BT, low, high)
            loss_BT = jnp.where(inside_BT, weight_BT, 0.0) * loss_BT
            metrics = metrics | {"correction": jnp.where(inside_BT, weight_BT, 0.0)}
        if additions.entropy_weight:
            loss_BT = loss_BT - additions.entropy_weight * jnp.where(inside_BT, batch.entropy_BT, 0.0)
        return loss_BT, metrics

    def prepare(logp_BT: Array | None, batch: LossBatch) -> LossBatch:
        if additions.mask_truncated:
            batch = reject(batch, batch.truncated_BT == 0)
        if correction and correction.keep:
            batch = reject(batch, correction.keep(log_gap(batch), batch.answer_BT, low, high))
        return batch if loss.prepare is None else loss.prepare(logp_BT, batch)

    needs = {"sampler_logp": correction, "truncated": additions.mask_truncated, "entropy": additions.entropy_weight}
    reads = tuple(sorted({*loss.reads, *(name for name, needed in needs.items() if needed)}))
    return check_results(
        dataclasses.replace(loss, measured=evaluate, reads=reads, prepare=prepare if rejects else loss.prepare)
    )
