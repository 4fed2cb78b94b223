"""Measures how far `math` and `gsm8k` agree with labeled cases and real model outputs, and prints tables.

    python tests/verify/agreement.py [data folder] [--quick]

The folder holds `verifier/cases.jsonl` and `verifier/model_outputs.jsonl`; by default it is `NFT_JAX_DATA`. `--quick`
leaves the throughput out.
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
PRINTED = 25  # disagreements


def read_rows(folder: Path, name: str) -> list[dict]:
    """Returns the lines of one file, without those whose labels are known to be doubtful."""
    lines = (folder / "verifier" / name).read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if not row.get("suspect_label")]


def grader_options(case: dict) -> dict:
    """Returns the options of `math` that do what the configuration of a case's test suite asks for."""
    config = case["config"]
    options = {"ordered": True} if config.get("semantics") == "string normaliser is_equiv" else {}
    options |= {"any_names": True} if config.get("strict") is False else {}
    options |= {"decimal_comma": True} if config.get("match_types") == ["expr"] else {}  # it reads numbers only
    return options | ({"precision": config["precision"]} if "precision" in config else {})


def measure_agreement(folder: Path) -> tuple[list[dict], list[dict]]:
    """Returns (cases, those of them whose verdict is not the expected one)."""
    cases = [case for case in read_rows(folder, "cases.jsonl") if case["kind"] in ("answer", "completion")]
    disagreements = []
    for case in cases:
        verdict = grade(case["pred"], case["gold"], **grader_options(case))
        if (verdict.status == "correct") != case["expected"]:
            found = {"status": verdict.status, "extracted": verdict.extracted, "reason": verdict.reason}
            disagreements.append(case | found)
    return cases, disagreements


def measure_throughput(items: list[tuple[str, str]], grader: str) -> float:
    """Returns answers per second through a pool of two workers: the median of `ROUNDS`, after one to start them."""
    with Pool(grader, workers=2) as pool:
        seconds = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            pool.grade(items)
            seconds.append(time.perf_counter() - start)
    return len(items) / statistics.median(seconds[1:])


def easy_items(count: int) -> list[tuple[str, str]]:
    """Returns integers, decimals and fractions, half of them correct, none twice."""
    items = []
    for index in range(count):
        gold = (str(index), f"{index}.5", rf"\frac{{{index}}}{{7}}", f"{index + 1:,},000")[index % 4]
        given = gold.replace(r"\frac", r"\dfrac") if index % 8 < 4 else str(-index - 1)
        items.append((rf"So the answer is \boxed{{{given}}}.", gold))
    return items


def main() -> None:
    """Prints the tables."""
    folder = Path(
        sys.argv[1]
        if sys.argv[1:2] not in ([], ["--quick"])
        else os.environ.get("NFT_JAX_DATA", ROOT.parent / "shared" / "data")
    )
    cases, disagreements = measure_agreement(folder)
    alone = sum(case["math_verify_0_9_0"] == case["expected"] for case in cases)
    print(f"cases: {len(cases) - len(disagreements)} of {len(cases)} as expected (math-verify alone: {alone})")
    for case in disagreements:
        print(f"  {case['id']} expected {case['expected']}, {case['status']} {case['extracted']!r:.100}")
        print(f"    {case['pred'][-160:]!r} | {case['gold'][-100:]!r} | {case['config']} {case['reason']}")
    outputs = read_rows(folder, "model_outputs.jsonl")
    for grader in ("math", "gsm8k"):
        kept = [row for row in outputs if grader == "math" or row["format"].startswith("A:")]
        verdicts = [grade(row["response"], row["gold"], grader=grader) for row in kept]
        agreed = [(v.status == "correct") == row["correct"] for v, row in zip(verdicts, kept, strict=True)]
        print(f"model outputs, {grader}: {sum(agreed)} of {len(kept)} = {sum(agreed) / len(kept):.2%}")
        print("  ", dict(Counter(verdict.status for verdict in verdicts)))
        pairs = zip(kept, verdicts, strict=True)
        for row, verdict in [pair for pair, agrees in zip(pairs, agreed, strict=True) if not agrees][:PRINTED]:
            print(f"  {row['id']} correct={row['correct']} {verdict.status} {verdict.extracted!r} | {row['gold']!r}")
    if "--quick" not in sys.argv:
        real = [(row["response"], row["gold"]) for row in outputs]
        print(f"throughput, easy answers: {measure_throughput(easy_items(40_000), 'math'):,.0f}/s")
        print(f"throughput, model outputs: {measure_throughput(real, 'math'):,.0f}/s")


if __name__ == "__main__":
    main()
