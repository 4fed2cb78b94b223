"""The curves of a run, drawn from as little as one line of metrics."""

import json

import matplotlib.image
import numpy as np
import pytest

from nft_jax.report.curves import draw

# Metrics of a step that trained nothing: no mean, no loss, no gradient.
NOTHING = {
    "reward": 0.0,
    "rate_histogram": [32] + [0] * 10,
    "entropy": None,
    "gradient_norm": None,
    "answer_length": 15.5,
    "answer_length_max": 16,
    "sampler_gap_mean": None,
    "sampler_gap_max": 0.0,
    "verdicts": {"incorrect": 96, "correct": 0, "unparsed": 32, "timeout": 0, "error": 0},
    "answers": 128,
    "truncated": 0.25,
    "clamped_value": None,
    "clamped_log_ratio": None,
    "tokens_per_second": 150.0,
}
SOMETHING = NOTHING | {
    "reward": 0.4,
    "rate_histogram": [4, 0, 6, 0, 0, 9, 0, 0, 8, 0, 5],
    "entropy": 0.7,
    "gradient_norm": 1.2,
    "sampler_gap_mean": 1e-7,
    "sampler_gap_max": 3e-6,
    "clamped_value": 0.1,
    "clamped_log_ratio": 0.0,
}
NO_NUMBERS = {name: None if not isinstance(value, list) else value for name, value in NOTHING.items()}
SCORE = {"greedy": 0.5, "greedy_error": 0.02, "sampled": 0.4, "sampled_error": 0.01}
# Of one problem.
LONE = SCORE | {"greedy_error": None, "sampled_error": None}


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps({"step": step} | row) + "\n" for step, row in rows))


@pytest.mark.parametrize(
    ("steps", "scores"),
    [
        ([SOMETHING, NOTHING, SOMETHING, SOMETHING], {0: SCORE, 4: SCORE}),
        ([SOMETHING], {}),
        ([NOTHING] * 3, {0: LONE}),
        ([NO_NUMBERS | {"rate_histogram": [0] * 11}] * 2, {}),
    ],
    ids=["ordinary", "one step", "nothing trained", "no number"],
)
def test_draw_any_run(tmp_path, steps, scores):
    write(tmp_path, "metrics.jsonl", enumerate(steps, start=1))
    write(tmp_path, "evaluation.jsonl", scores.items())
    path, drawing = draw(tmp_path, "nft, seed 0")
    assert b"<svg" in drawing and b"<dc:date>" not in drawing
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    # Nine panels with content: a white sheet would have one color.
    assert len(np.unique(pixels(path))) > 100


def pixels(path):
    """Each pixel's color as one number."""
    return (matplotlib.image.imread(path)[..., :3] * 255).astype(int) @ np.array([1 << 16, 1 << 8, 1])


def test_draw_depends_on_the_numbers(tmp_path):
    pictures = []
    for entropy in (0.2, 0.9):
        write(tmp_path, "metrics.jsonl", [(1, SOMETHING | {"entropy": 0.5}), (2, SOMETHING | {"entropy": entropy})])
        pictures.append(pixels(draw(tmp_path, "title")[0]))
    height, width = pictures[0].shape[:2]
    differs = pictures[0] != pictures[1]
    rows, columns = np.nonzero(differs)
    # Only the panel of the entropy: the upper right one.
    assert differs.any()
    assert rows.max() < 0.36 * height
    assert columns.min() > 0.6 * width


def test_draw_refuses_a_folder_without_metrics(tmp_path):
    with pytest.raises(FileNotFoundError, match="metrics.jsonl: nothing to draw yet"):
        draw(tmp_path, "title")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match="metrics.jsonl: nothing to draw yet"):
        draw(tmp_path, "title")


def test_draw_skips_a_line_that_is_half_written(tmp_path):
    write(tmp_path, "metrics.jsonl", [(1, SOMETHING)])
    with open(tmp_path / "metrics.jsonl", "a") as out:
        out.write('{"step": 2, "rew')
    assert draw(tmp_path, "title")[0].exists()
