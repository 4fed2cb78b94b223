"""Prints one table of several benchmarks: a row for each folder that holds a bench.json.

python -m nft_jax.bench.summary FOLDER [FOLDER ...]             # their numbers
python -m nft_jax.bench.summary --ratios FOLDER [FOLDER ...]    # seconds also as multiples of the first one's
"""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nft_jax.bench.tables import describe_shares
from nft_jax.files import read_json_object
from nft_jax.printing import show_control_characters


def summarize(folders: list[Path], *, ratios: bool) -> str:
    """Returns the table; the row of a folder without results reads "no results"."""
    results = {folder.name: _read(folder) for folder in folders}
    first = next((result for result in results.values() if result), None) if ratios else None
    rows = [
        {"run": name} | (_row(result, first) if result else {"step s": "no results"})
        for name, result in results.items()
    ]
    return tabulate(rows, "keys", tablefmt="plain", disable_numparse=True)


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / "bench.json"
    return read_json_object(path) if path.is_file() else None


def _row(result: dict[str, Any], first: dict[str, Any] | None) -> dict[str, str]:
    median, memory = result["median"], result["peak_memory_mib"]

    def seconds(part):
        ratio = "" if first is None else f" ({median[part] / first['median'][part]:.2f}×)"
        return f"{median[part]:.3f}{ratio}"

    rollout, update = describe_shares(result)
    peers = {f"{peer['name']} s": f"{peer['median'][peer['part']]:.3f}" for peer in result.get("peers", [])}
    return {f"{part} s": seconds(part) for part in ("step", "rollout", "update")} | {
        "sampled tok/s": f"{result['rollout_tokens_per_second']:,.0f}",
        "rollout": rollout,
        "update": update,
        "gap, mean and max": f"{median['gap']:.1e} {median['gap_max']:.1e}",
        "compile s": f"{result['compile_seconds']:.0f}",
        "peak GiB": f"{max(memory.values()) / 1024:.1f}",
        **peers,
    }


def main() -> None:
    """Prints the table."""
    show_control_characters()
    parser = argparse.ArgumentParser("nft_jax.bench.summary", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of benchmarks")
    parser.add_argument("--ratios", action="store_true", help="seconds also as multiples of the first one's")
    given = parser.parse_args()
    print(summarize(given.folders, ratios=given.ratios))


if __name__ == "__main__":
    main()
