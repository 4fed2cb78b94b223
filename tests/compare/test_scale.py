"""What AdamW makes of gradients at several scales, and what a gap between sampler and trainer makes of weights."""

import dataclasses

import numpy as np
import pytest

from helpers.experiments import grader, small, write_graders
from nft_jax.compare import scale
from nft_jax.config import OptimizerConfig


def draw_gradients(updates: int = 3) -> list[dict[str, np.ndarray]]:
    """Gradients whose sizes span six orders of magnitude, as those of a model do."""
    random = np.random.default_rng(0)
    sizes = {"matrix": 10.0 ** random.uniform(-9, -3, (8, 16)), "norm": 10.0 ** random.uniform(-9, -3, 8)}
    return [
        {name: (size * random.normal(size=size.shape)).astype(np.float32) for name, size in sizes.items()}
        for _ in range(updates)
    ]


def adamw_by_hand(gradients, config: OptimizerConfig, factor: float) -> float:
    """The mean |step| of Adam in float64, after gradients that are clipped by their global norm."""
    first = second = 0.0
    for gradient in gradients:
        flat = np.concatenate([x.ravel() for x in gradient.values()]).astype(np.float64) * factor
        flat *= min(1, config.clip_norm / np.linalg.norm(flat))
        first = config.beta1 * first + (1 - config.beta1) * flat
        second = config.beta2 * second + (1 - config.beta2) * flat**2
    updates = len(gradients)
    scaled = second / (1 - config.beta2**updates)
    return float(np.mean(np.abs(first / (1 - config.beta1**updates)) / (np.sqrt(scaled) + config.epsilon)))


@pytest.mark.parametrize("clip_norm", [1.0, 1e-3])
def test_measure_scales_equals_adamw_by_hand(clip_norm):
    # The squares of the last are 0 in float32.
    gradients, constants = draw_gradients(), (1.0, 10.0, 1e4, 1e16)
    config = OptimizerConfig(clip_norm=clip_norm, weight_decay=0.1, warmup_updates=7)
    found = scale.measure_scales(gradients, config, 10.0, constants)
    norms = [np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in gradient.values())) for gradient in gradients]
    for tokens, each in zip(constants, found, strict=True):
        scaled = np.array(norms) * 10 / tokens
        assert each.constant_tokens == tokens
        assert each.gradient_norm == pytest.approx(np.mean(scaled), rel=1e-5)
        assert each.updates_clipped == np.mean(scaled > clip_norm)
        clipped = np.minimum(scaled, clip_norm) / np.sqrt(8 * 16 + 8) / config.epsilon
        assert each.gradient_over_epsilon == pytest.approx(np.mean(clipped), rel=1e-5)
        assert each.step == pytest.approx(adamw_by_hand(gradients, config, 10 / tokens), rel=1e-4)
        without = adamw_by_hand(gradients, dataclasses.replace(config, epsilon=1e-60), 10 / tokens)
        assert each.kept == pytest.approx(each.step / without, rel=1e-3)
    kept = [each.kept for each in found]
    assert kept == sorted(kept, reverse=True) and 0 < kept[-1] < 0.5


def test_measure_gap_weakens_incorrect_tokens_most_where_most_answers_are_correct():
    delta = 0.01
    log_ratio_T = np.log1p(np.array([delta, -delta, 0, 0], np.float32))
    gaps = scale.measure_gap(log_ratio_T)
    for gap in gaps:
        less = (1 - delta) * (1 - gap.rate) / (1 - gap.rate * (1 - delta))
        assert gap.weight == pytest.approx((1 + delta + less + 2) / 4, rel=1e-4)
    weights = [gap.weight for gap in gaps]
    assert weights == sorted(weights, reverse=True) and weights[-1] < 0.97 < weights[0]
    assert [gap.weight for gap in scale.measure_gap(np.zeros(5, np.float32))] == [1.0] * len(gaps)


def test_markdown_has_a_row_for_each_scale_and_a_column_for_each_rate():
    scales = [scale.Scale(62.5, 1.234, 0.5, 99.9, 0.7, 0.91), scale.Scale(3584.0, 0.02, 0.0, 1.7, 0.4, 0.5)]
    text = scale.format_markdown(scales, [scale.Gap(15 / 16, 0.912)], np.array([0.01, -0.03], np.float32))
    assert "| 62.5 | 1.23 | 50% | 99.9 | 0.700 | 0.910 |" in text
    assert "| 3584 | 0.02 | 0% | 1.7 | 0.400 | 0.500 |" in text
    assert "| success rate r̂ | 15/16 |" in text
    assert "on 2 tokens: mean |log R| 0.02, largest 0.03" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss__name": "grpo"}, "'grpo' with the normalizer 'sequence_mean': only `constant`"),
        ({"optimizer__name": "muon"}, "optimizer.name='muon': the steps of adamw"),
    ],
)
def test_run_refuses_what_has_no_such_scale(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        scale.run(small(**changes), tmp_path)


@pytest.mark.slow
def test_run_measures_a_rollout_of_a_small_model(tmp_path):
    write_graders(tmp_path)
    scale.run(small(updates_per_step=2, verify__grader=grader("coin"), verify__workers=1), tmp_path)
    assert (tmp_path / "scale.json").is_file() and "| 62.5 |" in (tmp_path / "scale.md").read_text()
