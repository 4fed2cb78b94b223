"""Measures a step of the benchmark in several checkouts of this repository, by alternating turns.

    python tests/bench/measure_checkouts.py LENGTHS TURNS CHECKOUT CHECKOUT …

LENGTHS are those of `python -m nft_jax.bench --lengths`, such as ends:8. Each checkout has a process with its own code
and configs/bench.py, on this Python's packages; XLA_FLAGS acts on all. Prints for each the median CPU seconds of a
step, and the ratio to the first checkout's: its median over the turns, and its range.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARMUP = 1


def work(lengths: str) -> None:
    """Takes a step for each line of the standard input, and prints its CPU seconds."""
    from nft_jax import config_files
    from nft_jax.bench.measure import open_bench
    from nft_jax.bench.workload import read_lengths
    from nft_jax.config import load

    config = load(config_files.config("bench"))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_bench(config, Path(folder), read_lengths(lengths, config)) as bench,
    ):
        for _ in range(WARMUP):
            bench.step()
        print("ready", flush=True)
        for _ in sys.stdin:
            before = time.process_time()
            bench.step()
            print(time.process_time() - before, flush=True)


def start(checkout: str, lengths: str) -> subprocess.Popen:
    """Starts a checkout's process and waits until its step is compiled."""
    command = sys.executable, __file__, "--work", lengths
    environment = os.environ | {"PYTHONPATH": checkout}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=checkout)
    for line in process.stdout:
        if line == "ready\n":
            return process
    raise SystemExit(f"{checkout}: its step did not start")


def take_step(process: subprocess.Popen) -> float:
    """Returns the CPU seconds of one more step."""
    process.stdin.write("step\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main(lengths: str, turns: int, checkouts: list[str]) -> None:
    """Measures and prints."""
    processes = [start(checkout, lengths) for checkout in checkouts]
    seconds: list[list[float]] = [[] for _ in checkouts]
    for turn in range(turns):
        for place in range(len(checkouts))[:: 1 if turn % 2 == 0 else -1]:
            seconds[place].append(take_step(processes[place]))
    for checkout, process, own in zip(checkouts, processes, seconds, strict=True):
        process.stdin.close()
        process.wait()
        ratios = [one / first for one, first in zip(own, seconds[0], strict=True)]
        print(
            f"{checkout}: {statistics.median(own):.2f} s, ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    elif len(sys.argv) > 3:
        main(sys.argv[1], int(sys.argv[2]), [str(Path(each).resolve()) for each in sys.argv[3:]])
    else:
        sys.exit(__doc__)
