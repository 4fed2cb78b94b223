"""Every loss against its plain Python twin, on random packed rows."""

import jax
import numpy as np
import pytest

from helpers.loss_twins import TWINS, dpo_twin
from helpers.packed_answers import CASE_IDS, CASES, draw_answers, pack, units
from nft_jax.losses import LOSSES, resolve


def rows_of(answers, unit, per_row):
    groups = units(answers, unit)
    return [sum(groups[i : i + per_row], []) for i in range(0, len(groups), per_row)]


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] != "dpo"])
def test_loss_is_its_twin(name, options):
    with jax.enable_x64(True):
        rows = rows_of(draw_answers(seed=1), "answer", per_row=3)
        packed = pack(rows, length=26, dtype=np.float64)
        loss_BT = np.asarray(jax.jit(resolve(name, options).function)(packed.logp_BT, packed.batch))
    expected_BT = np.zeros_like(loss_BT)
    for answer, (row, place) in zip(sum(rows, []), packed.places, strict=True):
        expected_BT[row, place] = TWINS[name](answer, **options)
    assert loss_BT.dtype == np.float64
    np.testing.assert_allclose(loss_BT, expected_BT, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_sums_to_its_twin_over_each_pair(beta):
    with jax.enable_x64(True):
        rows = rows_of(draw_answers(seed=2), "pair", per_row=2)
        packed = pack(rows, length=34, dtype=np.float64)
        loss_BT = np.asarray(jax.jit(resolve("dpo", {"beta": beta}).function)(packed.logp_BT, packed.batch))
    answers = sum(rows, [])
    assert len(answers) >= 6
    for i in range(0, len(answers), 2):
        correct, incorrect = sorted(answers[i : i + 2], key=lambda answer: -answer.reward)
        tokens = np.concatenate([loss_BT[row, place] for row, place in packed.places[i : i + 2]])
        np.testing.assert_allclose(tokens, dpo_twin(correct, incorrect, beta) / len(tokens), rtol=1e-12)
    assert np.all(loss_BT[np.asarray(packed.batch.pair_BT) < 0] == 0)


def test_an_unpaired_answer_has_no_dpo_loss():
    answers = [answer for answer in draw_answers(seed=2) if answer.pair < 0]
    assert answers
    packed = pack([answers], length=60)
    assert not np.any(resolve("dpo", {}).function(packed.logp_BT, packed.batch))


@pytest.mark.parametrize(("name", "options"), CASES, ids=CASE_IDS)
def test_float32_agrees_with_float64(name, options):
    rows = rows_of(draw_answers(seed=3), LOSSES[name].traits.unit, per_row=2)
    small = pack(rows, length=34)
    loss_BT = jax.jit(resolve(name, options).function)(small.logp_BT, small.batch)
    assert loss_BT.dtype == np.float32
    with jax.enable_x64(True):
        wide = pack(rows, length=34, dtype=np.float64)
        wide_BT = jax.jit(resolve(name, options).function)(wide.logp_BT, wide.batch)
    np.testing.assert_allclose(loss_BT, wide_BT, rtol=2e-4, atol=2e-5)
