"""How large the page of a run is, and how long it takes to make and to open, by the size of the saved rollouts.

    python tests/report/measure_page.py [MEGABYTES ...]

Opens it in Chromium where there is one: until the answers are drawn, and then from one prompt to the next.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.browser import find_browser, open_browser
from helpers.experiments import small
from helpers.report_runs import DECODING, make_run
from nft_jax.report.page import write_page
from nft_jax.report.slots import Decoding, trace_slots

PROMPTS, ANSWERS, TOKENS, SCORED = 64, 16, 200, 4
WORDS = ["so", "we", "add", "both", "numbers", "and", "carry", "one", "\\boxed{", "42", "}", "because", "7", "×", "6"]


def make_group(random: np.random.Generator, number: int, scored: bool) -> dict:
    """A group of answers as long as those of a small model."""
    texts = [[f" {word}" for word in random.choice(WORDS, TOKENS)] for _ in range(ANSWERS)]
    correct = (random.random(ANSWERS) < 0.5).tolist()
    group = {
        "prompt": f"Problem: {number} + {number + 1} = ?\nAnswer:",
        "reference": str(2 * number + 1),
        "rate": sum(correct) / ANSWERS,
        "answers": ["".join(answer) for answer in texts],
        "verdicts": ["correct" if each else "incorrect" for each in correct],
        "extracted": ["42"] * ANSWERS,
        "reasons": ["" if each else "not the reference" for each in correct],
        "truncated": [False] * ANSWERS,
        "lengths": [TOKENS] * ANSWERS,
    }
    if scored:
        old_KT = np.round(-random.exponential(0.5, (ANSWERS, TOKENS)), 4)
        new_KT = np.round(old_KT + random.normal(0, 0.1, old_KT.shape), 4)
        values = {"sampler": old_KT, "after": new_KT, "old": old_KT, "new": new_KT, "entropy": -old_KT}
        values |= {"multiplier": new_KT, "gap": new_KT / 1e6}
        group["update"] = 0
        group["tokens"] = [
            {"texts": answer} | {name: value_KT[k].tolist() for name, value_KT in values.items()}
            for k, answer in enumerate(texts)
        ]
    return group


def write_rollouts(run: Path, most_bytes: int) -> None:
    """Writes steps until they are as long as asked."""
    random, step, size = np.random.default_rng(0), 0, 0
    while size < most_bytes:
        step += 1
        groups = [make_group(random, n, n < SCORED) for n in range(PROMPTS)]
        text = "".join(json.dumps(group) + "\n" for group in groups)
        (run / "rollouts" / f"step_{step:06d}.jsonl").write_text(text, encoding="utf-8")
        lengths = [random.integers(1, TOKENS, (PROMPTS, ANSWERS)).tolist()]
        decoding = Decoding(**DECODING | {"slots": 64})
        (shard,) = trace_slots(np.array(lengths), decoding)
        slots = {"step": step, "decoding": decoding._asdict(), "capacity": shard.capacity, "lengths": lengths}
        (run / "rollouts" / f"slots_{step:06d}.json").write_text(json.dumps(slots), encoding="utf-8")
        size += len(text)


def measure_opening(path: Path) -> list[float]:
    """Seconds and CPU seconds of the page's own thread, until it shows answers and from one prompt to the next."""
    with open_browser() as browser:
        page = browser.new_page()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def read() -> tuple[float, float]:
            metrics = {row["name"]: row["value"] for row in session.send("Performance.getMetrics")["metrics"]}
            return time.perf_counter(), metrics["TaskDuration"]

        began = read()
        page.goto(path.as_uri())
        page.wait_for_selector("#answers .card")
        opened = read()
        for _ in range(5):
            page.keyboard.press("j")
        page.evaluate("new Promise(requestAnimationFrame)")
        ended = read()
        each = [(after - before) / 5 for before, after in zip(opened, ended, strict=True)]
        return [*(after - before for before, after in zip(began, opened, strict=True)), *each]


def main() -> None:
    """Prints a line for each size; seconds on the clock, and of the CPU in brackets."""
    print("rollouts  page     made             opened           next prompt")
    for megabytes in map(float, sys.argv[1:] or ("1", "10", "100")):
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(Path(folder) / "run", rollouts=1)
            write_rollouts(run, int(megabytes * 1e6))
            began = time.perf_counter(), time.process_time()
            path = write_page(run, small(), None, b"<svg></svg>")
            made = [time.perf_counter() - began[0], time.process_time() - began[1]]
            times = [*made, *(measure_opening(path) if find_browser() else [])]
            pairs = [f"{clock:.2f} s ({cpu:.2f} s)" for clock, cpu in zip(times[::2], times[1::2], strict=True)]
            print(f"{megabytes:>5g} MB  {path.stat().st_size / 1e6:>4.1f} MB  {'  '.join(pairs)}", flush=True)


if __name__ == "__main__":
    main()
