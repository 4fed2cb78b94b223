"""The rehearsal of `model.bitwise`: on a mesh, in a step, and what it refuses."""

import jax
import numpy as np
import pytest

from helpers.configs import faults
from helpers.experiments import Program, build_on_mesh, grader, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax.models import bitwise
from nft_jax.models.attention import packed_attention
from nft_jax.parallel import layout
from nft_jax.rehearsal import Scores, check_gap, compare, rehearse
from nft_jax.run.metrics import step_metrics
from nft_jax.verify.callback import Grader

BITWISE = {"model__bitwise": True, "rollout__max_answer_tokens": 70, "rollout__slots": 3, "selection__max_rounds": 1}
MESH = {"mesh__data": 4, "packing__row_tokens": 160, "packing__rows_per_micro_batch": 1, "rollout__temperature": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("rehearsal"))


def rehearse_small(folder, **changes) -> str:
    """Rehearses a small run, whose step is not compiled."""
    experiment = build_on_mesh(small(**BITWISE | changes), folder)
    optimizer, model = experiment.make_optimizer(), experiment.model
    weights = experiment.place(lively_weights(model.config), layout.specs(model.base.axes, layout.TRAINING))
    step = experiment.step(optimizer, Grader(None, None, None))
    prompts = experiment.prompts(experiment.dataset.tables["train"])
    return rehearse(step, experiment.initial_state(optimizer, weights), prompts)


def test_sampler_and_trainer_agree_on_a_mesh(folder):
    """Rows that share prompts, on four data shards."""
    said = rehearse_small(folder, **MESH)
    print(said)
    assert " log-probs of the rehearsal are the trainer's in every bit" in said


@pytest.mark.slow
def test_rehearsal_refuses_another_formulation(folder, monkeypatch):
    monkeypatch.setattr(bitwise, "attend_rows", lambda placement: packed_attention)
    with pytest.raises(ValueError, match=r"log-probs of the sampler are not the trainer's. The first: token \d+ after"):
        rehearse_small(folder)


@pytest.mark.slow
def test_ratio_of_the_first_update_is_exactly_1_whatever_the_old_log_probs_are(folder):
    after = []
    for old_logp in ("sampler", "current", "recompute"):
        config = small(verify__grader=grader("coin"), old_logp=old_logp, model__dtype="bfloat16", **BITWISE | MESH)
        program = Program(config, folder)
        for record in program.take(2):
            metrics = step_metrics(record)
            print(f"{metrics['tokens_trained']} log-probs of a step with old_logp={old_logp}")
            assert metrics["tokens_trained"] > 100
            assert (metrics["sampler_gap_mean"], metrics["sampler_gap_max"]) == (0, 0)
            assert (metrics["ratio_mean"], metrics["ratio_max"]) == (1, 1)
        after.append(jax.device_get(program.state.weights))
        program.close()
    for other in after[1:]:
        jax.tree.map(np.testing.assert_array_equal, after[0], other)


def test_rehearsal_names_the_first_place_that_differs_in_a_bit():
    sampler = np.full((1, 2, 3, 4), -1.5, np.float32)
    trainer, answer = sampler.copy(), np.zeros(sampler.shape, np.int32)
    token, position = np.full_like(answer, 7), np.full_like(answer, 11)
    scores = Scores(sampler, trainer, answer, token, position)
    assert compare(scores) == "bitwise   24 log-probs of the rehearsal are the trainer's in every bit"
    answer[0, 0, 1, 1], trainer[0, 0, 1, 1] = -1, 3.0
    assert compare(scores).startswith("bitwise   23 ")
    trainer[0, 1, 2, 3] = np.nextafter(np.float32(-1.5), np.float32(0))
    given = r"1 of 23 .*token 7 after position 11 .*\(update 0, data shard 1, row 2, place 3\): -1.5 .* -1.49999988 "
    with pytest.raises(ValueError, match=given):
        compare(scores)


def test_step_with_a_gap_ends_the_run():
    check_gap(small(), 3, {"sampler_gap_max": 1e-7})
    config = small(**BITWISE)
    check_gap(config, 3, {"sampler_gap_max": 0.0})
    check_gap(config, 3, {"sampler_gap_max": None})
    with pytest.raises(FloatingPointError, match="in step 3 a log-prob of the sampler is off the trainer's by 1e-07"):
        check_gap(config, 3, {"sampler_gap_max": 1e-7})


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("lora__rank", 4, "0"),
        ("rollout__weights", "int8", "model"),
        ("selection__carry", True, "False"),
        ("model__attention", "splash", "auto or xla"),
        ("model__experts", 4, "0"),
        ("model__remat", "dots", "none or attention or full or offload"),
        ("mesh__tensor", 2, "1"),
        ("mesh__replica", 2, "1"),
    ],
)
def test_bitwise_refuses_what_it_cannot_give(name, value, needed):
    said = faults(model__bitwise=True, **{name: value})
    assert f"config.model.bitwise=true needs config.{name.replace('__', '.')}={needed}, got {value}: " in said
