"""Measure the grader `math` against real cases and real model outputs; run by hand, prints the tables.

    python tests/verify/agreement.py [data folder]

The folder holds `verifier/cases.jsonl` and `verifier/model_outputs.jsonl` (see `data_folder` of tests/conftest.py).
"""

import json
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from nft_jax.verify import Pool, grade

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
SHOWN = 25  # disagreements


def rows(folder: Path, name: str) -> list[dict]:
    """The lines of one file, without the labels that are known to be doubtful."""
    lines = (folder / "verifier" / name).read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if not row.get("suspect_label")]


def options(case: dict) -> dict:
    """What a suite's configuration says in the words of this grader."""
    config = case["config"]
    found = {"ordered": True} if config.get("semantics") == "string normaliser is_equiv" else {}
    return found | ({"precision": config["precision"]} if "precision" in config else {})


def agreement(folder: Path) -> tuple[list[dict], list[dict]]:
    """(cases, those of them where the verdict is not the expected one)."""
    cases = [case for case in rows(folder, "cases.jsonl") if case["kind"] in ("answer", "completion")]
    wrong = []
    for case in cases:
        verdict = grade(case["pred"], case["gold"], **options(case))
        if (verdict.status == "correct") != case["expected"]:
            wrong.append(case | {"status": verdict.status, "extracted": verdict.extracted, "reason": verdict.reason})
    return cases, wrong


def throughput(items: list[tuple[str, str]], grader: str) -> float:
    """Answers per second through a pool of two workers: the median of some rounds, after one to start them."""
    with Pool(grader, workers=2) as pool:
        seconds = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            pool.grade(items)
            seconds.append(time.perf_counter() - start)
    return len(items) / statistics.median(seconds[1:])


def easy_items(count: int) -> list[tuple[str, str]]:
    """Integers, decimals and fractions, half of them right, none twice."""
    made = []
    for index in range(count):
        gold = (str(index), f"{index}.5", rf"\frac{{{index}}}{{7}}", f"{index + 1:,},000")[index % 4]
        said = gold.replace(r"\frac", r"\dfrac") if index % 8 < 4 else str(-index - 1)
        made.append((rf"So the answer is \boxed{{{said}}}.", gold))
    return made


def main() -> None:
    """Print the tables."""
    folder = Path(
        sys.argv[1]
        if sys.argv[1:2] not in ([], ["--quick"])
        else os.environ.get("NFT_JAX_DATA", ROOT.parent / "shared" / "data")
    )
    cases, wrong = agreement(folder)
    alone = sum(case["math_verify_0_9_0"] == case["expected"] for case in cases)
    print(f"cases: {len(cases) - len(wrong)} of {len(cases)} as expected (math-verify alone: {alone})")
    for case in wrong:
        print(f"  {case['id']} expected {case['expected']}, {case['status']} {case['extracted']!r:.100}")
        print(f"    {case['pred'][-160:]!r} | {case['gold'][-100:]!r} | {case['config']} {case['reason']}")
    outputs = rows(folder, "model_outputs.jsonl")
    for grader in ("math", "gsm8k"):
        kept = [row for row in outputs if grader == "math" or row["format"].startswith("A:")]
        verdicts = [grade(row["response"], row["gold"], grader=grader) for row in kept]
        agreed = [(v.status == "correct") == row["correct"] for v, row in zip(verdicts, kept, strict=True)]
        print(f"model outputs, {grader}: {sum(agreed)} of {len(kept)} = {sum(agreed) / len(kept):.2%}")
        print("  ", dict(Counter(verdict.status for verdict in verdicts)))
        differing = [pair for pair, fine in zip(zip(kept, verdicts, strict=True), agreed, strict=True) if not fine]
        for row, verdict in differing[:SHOWN]:
            print(f"  {row['id']} correct={row['correct']} {verdict.status} {verdict.extracted!r} | {row['gold']!r}")
    if "--quick" not in sys.argv:
        real = [(row["response"], row["gold"]) for row in outputs]
        print(f"throughput, easy answers: {throughput(easy_items(40_000), 'math'):,.0f}/s")
        print(f"throughput, model outputs: {throughput(real, 'math'):,.0f}/s")


if __name__ == "__main__":
    main()
