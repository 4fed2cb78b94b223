"""What the equivalence lab found, in tables that a terminal of 110 columns holds, and as JSON of a few digits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nft_jax.compare.gradients import Sampled


def described(sampled: Sampled) -> dict[str, Any]:
    """The rollout in figures; rates are shares of right answers of a group."""
    groups, count = sampled.groups, sampled.count
    rate = groups.rate_Q[:count]
    return {
        "groups": count,
        "answers": count * groups.length_QK.shape[1],
        "tokens": int(groups.length_QK[:count].sum()),
        "rate": {"mean": float(rate.mean()), "lowest": float(rate.min()), "highest": float(rate.max())},
    }


def rollout_line(figures: dict[str, Any]) -> str:
    """The rollout in words."""
    rate = figures["rate"]
    return (
        f"rollout: {figures['groups']} groups, {figures['answers']} answers, {figures['tokens']:,} tokens; right of a "
        f"group {rate['lowest']:.0%} to {rate['highest']:.0%}, {rate['mean']:.0%} on average"
    )


def on_policy_table(found: Sequence) -> str:
    """A row for each comparison: the parameter whose gradients differ most, and the smallest cosine."""
    head = ("gradient of", "against that of", "in", "on", "difference", "1 − cosine")
    lines = ["on-policy; largest max |a − b| / max |b| and smallest cosine of a parameter:", _row(*head, "")]
    lines += [
        _row(
            each.mine,
            each.peer,
            each.precision,
            each.devices,
            f"{each.relative:.1e}",
            f"{max(1 - each.cosine, 0):.1e}",
            "equal" if each.equal else "differ",
        )
        for each in found
    ]
    return "\n".join(lines)


def _row(mine, peer, precision, devices, relative, cosine, verdict):
    return f"{mine:<45}{peer:<21}{precision:<8}{devices:>2}{relative:>11}{cosine:>11}  {verdict}".rstrip()


def drift_table(points: Sequence) -> str:
    """A row for each number of updates on the rollout."""
    pairs, losses = list(points[0].cosine), [name for name in points[0].stopped if any(p.stopped[name] for p in points)]
    lines = ["as the policy drifts; cosines of the gradients by all parameters of"]
    lines += [f"  {number}: {pair}" for number, pair in enumerate(pairs, start=1)]
    lines += ["and the share of tokens that have no gradient any more by"]
    lines += [f"  {chr(ord('a') + number)}: {loss}" for number, loss in enumerate(losses)]
    columns = [f"{number}" for number in range(1, len(pairs) + 1)], [chr(ord("a") + n) for n in range(len(losses))]
    lines.append(
        f"{'update':<7}{'|log R|':>9}{'KL':>9}{'max R':>8}  " + "".join(f"{c:>9}" for part in columns for c in part)
    )
    for point in points:
        cosines = "".join(f"{point.cosine[pair]:>9.4f}" for pair in pairs)
        stopped = "".join(f"{point.stopped[loss]:>9.1%}" for loss in losses)
        moments = f"{point.log_ratio:>9.1e}{point.kl:>9.1e}{point.ratio_max:>8.3g}"
        lines.append(f"{point.update:<7}{moments}  {cosines}{stopped}")
    return "\n".join(lines)


def rounded(tree: Any) -> Any:
    """JSON values with floats of ten digits, which tell a cosine from 1."""
    if isinstance(tree, dict):
        return {name: rounded(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(value) for value in tree]
    return float(f"{tree:.10g}") if isinstance(tree, float | np.floating) else tree
