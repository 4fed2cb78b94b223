"""The equivalence lab: a real rollout, gradients in float64 on eight devices, drift, and the whole command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.experiments import grader, open_on_mesh, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax.compare import equalities, equivalence, matrix
from nft_jax.compare.equivalence_report import drift_table, on_policy_table, rollout_figures
from nft_jax.compare.gradients import Gradients, compare_arrays, label_loss, name_parameters, sample_buffer
from nft_jax.config import LossConfig
from nft_jax.parallel.mesh import make_mesh

ROOT = Path(__file__).parents[2]
UPDATES = 2


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = write_graders(tmp_path_factory.mktemp("lab"))
    config = small(verify__grader=grader("coin"), updates_per_step=UPDATES, verify__workers=1)
    experiment = open_on_mesh(config, folder)
    yield experiment
    experiment.verifier.pool.close()


@pytest.fixture(scope="module")
def weights(experiment):
    return lively_weights(experiment.config.model)


@pytest.fixture(scope="module")
def rollout(experiment, weights):
    return sample_buffer(experiment, weights)


@pytest.fixture(scope="module")
def lab(experiment, rollout):
    mesh = make_mesh(4, 2, jax.devices()[:8])
    return Gradients(experiment, rollout, mesh, equivalence.LOSSES, "float64")


def test_run_refuses_adapters(tmp_path):
    with pytest.raises(ValueError, match=r"config.lora.rank=2: .*; use lora.rank=0"):
        equivalence.run(small(lora__rank=2), tmp_path)


def test_sample_buffer_fills_one_training_buffer_with_mixed_groups(rollout, experiment):
    figures = rollout_figures(rollout)
    assert figures["answers"] == rollout.count * experiment.config.answers_per_prompt > 0
    rates = rollout.groups.rate_Q[: rollout.count]
    assert ((rates > 0) & (rates < 1)).all()
    inside_QKT = np.arange(rollout.groups.logp_QKT.shape[2]) < rollout.groups.length_QK[..., None]
    assert (rollout.groups.logp_QKT[: rollout.count][inside_QKT[: rollout.count]] < 0).all()


def test_on_policy_equals_three_pairs_to_float64_rounding_and_not_the_other_two(lab, weights):
    found = equivalence.compare_on_policy(lab, weights)
    assert [each.equal for each in found] == [True, True, True, False, False]
    names = name_parameters(weights).keys()
    for each in found:
        assert each.parameters.keys() == names and (each.precision, each.devices) == ("float64", 8)
        assert each.relative == max(d.relative for d in each.parameters.values())
        assert each.cosine == min(d.cosine for d in each.parameters.values())
    assert max(each.relative for each in found[:3]) < 1e-12 < 1e-3 < min(each.relative for each in found[3:])
    assert all(len(line) <= 110 for line in on_policy_table(found).splitlines())


def test_measure_drift_separates_the_equal_pairs_except_rft(lab, weights):
    moved = jax.tree.map(lambda x: x * np.float32(1.03), weights)
    point = equivalence.measure_drift(lab, moved, 1, equivalence.PAIRS)
    grpo, dr_grpo, rft = (point.cosine[pair.label] for pair in equivalence.PAIRS[:3])
    assert max(grpo, dr_grpo) < 1 - 1e-4 and abs(1 - rft) < 1e-12
    assert point.log_ratio > 0.01 and point.kl > 0 and point.ratio_max > 1
    assert 0 < point.zero_share[label_loss(equivalence.GRPO)] < 1
    assert point.zero_share[label_loss(equivalence.LIKE_GRPO)] == 0
    assert all(len(line) <= 110 for line in drift_table([point]).splitlines())


def test_iterate_updates_takes_the_updates_of_the_config(experiment, rollout, weights):
    states = list(equivalence.iterate_updates(experiment, rollout, weights))
    assert len(states) == UPDATES + 1
    jax.tree.map(np.testing.assert_array_equal, states[0], weights)
    for before, after in zip(states, states[1:], strict=False):
        assert all((x != y).any() for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def test_matrix_of_all_losses_on_a_real_rollout(rollout, tmp_path):
    found = matrix.make_matrix(matrix.shown_losses(), equalities.rollout_groups(rollout))
    K = rollout.groups.reward_QK.shape[1]
    for row, column, factor in (
        ("nft omega=sqrt_odds", "grpo", 1),
        ("nft omega=one_minus_rate", "dr_grpo", 1),
        ("nft omega=odds", "maxrl", 1),
        ("nft omega=odds ratio=mean", "maxrl", 1),
        ("nft omega=one negative_weight=0", "rft", 1),
        ("gspo", "grpo", 1),
        ("rloo", "dr_grpo", K / (K - 1)),
    ):
        cell = found[row][column]
        assert cell.relation == (matrix.EQUAL if factor == 1 else matrix.FACTOR), (row, column)
        np.testing.assert_allclose(cell.factor, factor, rtol=1e-12)
    assert found["grpo"]["dr_grpo"].relation == found["nft omega=one"]["grpo"].relation == matrix.DIFFERENT
    assert matrix.draw(found, tmp_path / "matrix.png").stat().st_size > 10_000


def test_gradients_refuse_a_loss_of_pairs(experiment, rollout):
    with pytest.raises(ValueError, match="'dpo' is a loss of pairs"):
        Gradients(experiment, rollout, experiment.model.mesh, [LossConfig(name="dpo")])


def test_difference_compares_the_largest_elements_and_the_directions():
    one = np.array([3.0, 0.0], np.float32)
    assert compare_arrays(one, np.array([0.0, 4.0], np.float32)) == (1.0, 0.0)
    assert compare_arrays(2 * one, one) == (1.0, 1.0)


@pytest.mark.slow  # The whole command: a warm start, 12 programs, 17 × 6 gradients.
def test_compare_equivalence_command_shows_both_precisions_and_both_numbers_of_devices(tmp_path):
    # One CPU device is what a user has: the command simulates the others itself.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "nft_jax.compare", "--equivalence", f"--workdir={tmp_path}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    # The folder may have a long name.
    assert all(len(line.replace(str(tmp_path), "")) <= 110 for line in ran.stdout.splitlines())
    found = json.loads((tmp_path / "equivalence.json").read_text())
    settings = {(each["precision"], each["devices"]) for each in found["on_policy"]}
    assert settings == {(precision, devices) for precision in ("float64", "float32") for devices in (1, 8)}
    for pair in equivalence.PAIRS:
        relative = {
            each["precision"]: each["relative"]
            for each in found["on_policy"]
            if (each["mine"], each["peer"]) == (label_loss(pair.mine), label_loss(pair.peer))
        }
        equal = pair in equivalence.PAIRS[:3]
        assert all((relative[name] <= limit) == equal for name, limit in equivalence.ROUNDING.items()), pair
    first, *_, last = found["drift"]
    assert (first["update"], last["update"]) == (0, 16) and first["log_ratio"] < 1e-4 < last["log_ratio"]
    assert min(first["cosine"][pair.label] for pair in equivalence.PAIRS[:2]) > 1 - 1e-6
    assert max(last["cosine"][pair.label] for pair in equivalence.PAIRS[:2]) < 1 - 1e-3
    assert {path.name for path in tmp_path.glob("*.png")} == {"equivalence.png", "multipliers.png", "matrix.png"}
