"""A comparison in numbers and pictures, from made-up runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from nft_jax.compare import figures
from nft_jax.compare.runs import Cost
from nft_jax.compare.study import StudyResult, best_rate
from nft_jax.compare.summary import CURVES, estimate_interval, format_markdown, summarize
from nft_jax.compare.variants import Budget, Plan, Variant

BUDGET = Budget("tokens", 1200)
COLAB = Path(__file__).parents[2] / "colab"


def score(right, entropy=0.5):
    return {"greedy": right, "sampled": right, "pass_at": {1: right, 4: 1.0}, "entropy": entropy, "length": 8.0}


def run(right, tokens=(700, 1200)):
    rows = [dict.fromkeys((*CURVES, *Cost._fields), 1.0) | {"tokens": count, "sampled": right} for count in tokens]
    return {"curve": rows, "test": score(right)}


@pytest.fixture
def found():
    variants = [Variant("nft", 1), Variant("rft", 1)]
    plan = Plan(variants, [0, 1, 2], [9], [1e-3, 2e-3, 4e-3], BUDGET)
    nft, rft = variants
    tuning = {nft: {1e-3: [0.2], 2e-3: [0.3], 4e-3: [0.1]}, rft: {1e-3: [0.1], 2e-3: [0.1], 4e-3: [0.4]}}
    runs = {nft: [run(0.5), run(0.6), run(0.7)], rft: [run(0.4), run(0.55), run(0.6)]}
    bases = [{"validation": score(0.1), "test": score(right)} for right in (0.1, 0.2, 0.3)]
    return StudyResult(plan, tuning, {variant: best_rate(tuning[variant]) for variant in variants}, runs, bases)


def test_interval_is_student_s():
    # Half widths by hand: t(0.975, n − 1) · s / √n.
    assert estimate_interval([1.0, 2.0, 3.0]) == pytest.approx(
        {"mean": 2, "low": 2 - 4.302653 / 3**0.5, "high": 2 + 4.302653 / 3**0.5}, abs=1e-6
    )
    assert estimate_interval([0.5, 0.7]) == pytest.approx(
        {"mean": 0.6, "low": 0.6 - 1.270620, "high": 0.6 + 1.270620}, abs=1e-5
    )
    assert estimate_interval([4.0]) == {"mean": 4.0, "low": None, "high": None}


def test_interval_contains_the_mean_nineteen_times_of_twenty():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    held = [one["low"] <= 3.0 <= one["high"] for one in map(estimate_interval, draws)]
    assert abs(np.mean(held) - 0.95) < 0.011  # three standard errors


def test_best_rate_has_the_best_mean_and_is_the_smallest_of_equal_ones():
    assert best_rate({1.0: [0.1, 0.9], 2.0: [0.6, 0.6], 3.0: [0.5, 0.5]}) == 2.0
    assert best_rate({4.0: [0.5], 2.0: [0.5], 3.0: [0.5]}) == 2.0


def test_summarize_pairs_seeds_and_marks_rates_at_an_edge(found):
    summary = json.loads(json.dumps(summarize(found), allow_nan=False))
    nft, rft = summary["variants"]
    assert nft["test"]["sampled"]["by_seed"] == [0.5, 0.6, 0.7]
    assert rft["difference"]["sampled"] == pytest.approx(estimate_interval([-0.1, -0.05, -0.1]))
    assert nft["difference"]["sampled"] == {"mean": 0, "low": 0, "high": 0}
    assert (nft["rate"], nft["edge"]) == (2e-3, False)
    assert (rft["rate"], rft["edge"]) == (4e-3, True)
    assert summary["base"]["sampled"]["mean"] == pytest.approx(0.2)
    assert summary["compared_with"] == "nft"


def test_summarize_starts_curves_at_the_base_and_samples_them_evenly(found):
    curve = summarize(found)["variants"][0]["curve"]
    assert curve["tokens"] == [0, 200, 400, 600, 800, 1000, 1200]
    # From 0.1 at 0 tokens in a line to 0.5 at 700, then level.
    assert curve["sampled"][0] == pytest.approx(
        [0.1, *(0.1 + 0.4 * t / 700 for t in (200, 400, 600)), *[0.5] * 3], abs=1e-5
    )
    # Nothing is known of a step's own metrics before the first.
    assert curve["entropy"][0] == [None, None, None, None, 1.0, 1.0, 1.0]
    assert len(curve["sampled"]) == 3


def test_summary_by_updates_has_curves_over_updates(found, tmp_path):
    summary = summarize(found._replace(plan=found.plan._replace(budget=Budget("updates", 12))))
    assert summary["variants"][0]["curve"]["updates"] == [0, 2, 4, 6, 8, 10, 12]
    assert format_markdown(summary).startswith("12 updates a run; ")
    figures.draw(summary, tmp_path)


def test_markdown_shows_means_intervals_and_differences(found):
    text = format_markdown(summarize(found))
    assert "| `nft` | 0.002 | 60.0% ± 24.8% | 60.0% ± 24.8% | 100.0% ± 0.0% |" in text
    assert "| `rft` | 0.004* |" in text
    assert "| -8.3% [-15.5%, -1.2%] |" in text
    assert "**strictly on-policy**" in text
    assert "| sampled | pass@4 | entropy |" in text


@pytest.mark.parametrize(
    "path", sorted(COLAB.glob("results/compare_*/comparison.json")), ids=lambda path: path.parent.name
)
def test_markdown_of_the_results_is_on_the_page(path):
    """The page has every row of the tables of the committed results."""
    page = (COLAB / "comparison.md").read_text(encoding="utf-8")
    rows = [line for line in format_markdown(json.loads(path.read_text())).splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert [row for row in rows if row not in page] == []


def test_figures_draw_several_regimes_in_one_more_picture(found, tmp_path):
    summary = summarize(found)
    assert [path.name for path in figures.draw(summary, tmp_path)] == ["learning.png", "final.png"]
    twice = summary | {"variants": [one | {"updates": count} for count in (1, 16) for one in summary["variants"]]}
    paths = figures.draw(twice, tmp_path)
    assert [path.name for path in paths] == ["learning.png", "final.png", "regimes.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_summarize_and_draw_one_seed_without_intervals(found, tmp_path):
    one = found._replace(
        plan=found.plan._replace(seeds=[0]),
        runs={variant: runs[:1] for variant, runs in found.runs.items()},
        bases=found.bases[:1],
    )
    summary = summarize(one)
    assert "| `rft` | 0.004* | 40.0% | 40.0% | 100.0% | 0.500 | 8.00 | -10.0% |" in format_markdown(summary)
    figures.draw(summary, tmp_path)
