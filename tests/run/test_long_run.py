"""A long run takes no more memory, descriptors, threads and processes at its end than at its beginning."""

import json

import psutil
import pytest

from helpers.experiments import grader, small, write_graders
from helpers.runs import Command

STEPS, FIRST, LAST = 500, 50, 480
RUN = {
    "steps": STEPS,
    "model__layers": 1,
    "evaluation__max_problems": 8,
    "evaluation__problems_per_batch": 8,
    "evaluation__answers_per_problem": 1,
    "evaluation__every_steps": 50,
    "record__checkpoint_every_steps": 20,
    "record__rollouts_every_steps": 25,
}


def take_stock(process: psutil.Process) -> dict[str, float]:
    """Returns what a process and its workers use."""
    workers = process.children(recursive=True)
    return {
        "RSS MiB": process.memory_info().rss / 2**20,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "workers": len(workers),
        "RSS of workers MiB": sum(one.memory_info().rss for one in workers) / 2**20,
    }


@pytest.mark.slow
def test_train_uses_no_more_after_five_hundred_steps(tmp_path, capsys):
    config = small(verify__grader=grader("coin"), **RUN)
    process = Command(config, tmp_path / "run", write_graders(tmp_path))
    seen = {}
    for step in (FIRST, LAST):
        assert process.wait(lambda step=step: len(process.run.steps) >= step), process.printed
        seen[step] = take_stock(psutil.Process(process.process.pid))
    assert process.end() == 0, process.printed
    rows = process.run.rows("metrics.jsonl")
    with capsys.disabled():
        print(f"\n{STEPS} steps of {sum(row['seconds'] for row in rows) / STEPS:.2f} s:")
        for name in seen[FIRST]:
            print(f"  {name}: {seen[FIRST][name]:.0f} after step {FIRST}, {seen[LAST][name]:.0f} after step {LAST}")
        print("  RSS MiB by the metrics: " + json.dumps({n: round(rows[n]["host_rss_mib"]) for n in (0, 49, 249, 499)}))
    for name in ("descriptors", "threads", "workers"):
        # Orbax saves in threads, which have files open.
        assert seen[LAST][name] <= seen[FIRST][name] + 8 * (name != "workers"), name
    assert seen[LAST]["RSS MiB"] <= 1.15 * seen[FIRST]["RSS MiB"]
    assert seen[LAST]["RSS of workers MiB"] <= 1.15 * seen[FIRST]["RSS of workers MiB"]
