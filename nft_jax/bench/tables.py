"""Tables of what a benchmark measured."""

import math
from typing import Any

from tabulate import tabulate

from nft_jax.bench.measure import PARTS
from nft_jax.bench.sweep import Fit, Sweep


def step_table(result: dict[str, Any]) -> str:
    """Makes the table of one config: a row for each part of the step and for each peer; then what follows from it."""
    median, spread, share = result["median"], result["spread"], result["share"]
    rows = [("step", *_seconds(median["step"], spread["step"]), "")]
    rows += [(part, *_seconds(median[part], spread[part]), f"{share[part]:.0%} of the step") for part in PARTS]
    if abs(share["other"]) >= 0.005:
        rows.append(("other", "", "", f"{share['other']:.0%} of the step"))
    rows += [_peer_row(peer) for peer in result.get("peers", [])]
    align = ("left", "right", "left", "left")
    memory = ", ".join(f"{where} {mib:.0f} MiB" for where, mib in result["peak_memory_mib"].items())
    return "\n".join(
        [
            f"answers {result['lengths']}: {median['tokens']:.0f} tokens a step, {median['trained']:.0f} trained",
            tabulate(rows, tablefmt="plain", colalign=align, disable_numparse=True),
            f"{result['tokens_per_second']:.0f} tokens/s in all, {result['rollout_tokens_per_second']:.0f} sampled, "
            f"{result['trained_tokens_per_second']:.0f} trained (prompts too); slots useful {median['slots']:.0%}",
            f"of this machine's matmul ({result['matmul_gflops']:.0f} GFLOP/s; memory {result['bandwidth_gbs']:.1f} "
            f"GB/s read and written in place): rollout {result['rollout_share_of_matmul']:.0%}, update "
            f"{result['update_share_of_matmul']:.0%}",
            *_chip_lines(result),
            _gap_line(median),
            f"compiled in {result['compile_seconds']:.1f} s; peak memory {memory}",
        ]
    )


def _gap_line(median: dict[str, float]) -> str:
    words = "log-probs of sampler and trainer"
    if math.isnan(median["gap"]):
        return f"{words}: not compared, because no answer of some step began in it"
    return f"{words}: {median['gap']:.1e} apart on average, {median['gap_max']:.1e} at most"


def _seconds(median: float, spread: list[float]) -> tuple[str, str]:
    low, high = spread
    return f"{median:.3f} s", f"({low:.3f} to {high:.3f})"


def _peer_row(peer: dict[str, Any]) -> tuple[str, ...]:
    part, median = peer["part"], peer["median"]
    rollout = f"; rollout {median['rollout']:.3f} s" if part == "step" else ""
    words = f"{median['tokens']:.0f} tokens: {peer['ratio']:.2f} times our {part}{rollout}"
    return peer["name"], *_seconds(median[part], peer["spread"]), words


def _chip_lines(result: dict[str, Any]) -> list[str]:
    if "chip" not in result:
        return []
    return [
        f"of the data sheet of {result['chip']}: rollout {result['rollout_share_of_bandwidth']:.0%} of its bandwidth "
        f"(weights and live cache), update {result['update_mfu']:.0%} of its bfloat16 FLOP/s (recomputing not counted)"
    ]


def describe_shares(result: dict[str, Any]) -> tuple[str, str]:
    """Returns the shares of rollout and update: of a chip's bandwidth and FLOP/s, or of this machine's own matmul."""
    if "chip" not in result:
        return tuple(f"{result[f'{part}_share_of_matmul']:.0%} of matmul" for part in ("rollout", "update"))
    return f"{result['rollout_share_of_bandwidth']:.0%} of bandwidth", f"{result['update_mfu']:.0%} MFU"


def sweep_table(sweep: Sweep, rows: list[dict[str, Any]], lines: dict[str, Fit]) -> str:
    """Makes the table of a sweep: a row for each value; then the fitted lines."""
    cells = [_sweep_row(sweep, row) for row in rows]
    table = tabulate(cells, "keys", tablefmt="plain", stralign="right", disable_numparse=True)
    words = [
        f"{part}: {fit.seconds:.3f} s {1e6 * fit.per_token:+.1f} µs a token, off by at most {fit.residual:.1%} of "
        f"what was measured"
        for part, fit in lines.items()
    ]
    return "\n".join([table, *words])


def _sweep_row(sweep: Sweep, row: dict[str, Any]) -> dict[str, str]:
    median, memory = row["median"], dict(row["peak_memory_mib"])
    cells = {sweep.name: row["value"]} | {f"{part} s": f"{median[part]:.3f}" for part in ("step", "rollout", "update")}
    cells |= {"tokens": f"{median['tokens']:.0f}", "slots": f"{median['slots']:.0%}"}
    cells |= {"compile s": f"{row['compile_seconds']:.1f}", "host MiB": f"{memory.pop('host'):.0f}"}
    if memory:
        # The fullest device counts.
        cells["device MiB"] = f"{max(memory.values()):.0f}"
    return cells | {f"{peer['name']} s": f"{peer['median'][peer['part']]:.3f}" for peer in row.get("peers", [])}
