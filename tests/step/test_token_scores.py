"""Recorded tokens: what the update that trains them saw, and their log-probs by the weights before and after a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import Program, grader, small
from helpers.step_programs import PACKING, K, Q
from nft_jax.compare.multipliers import token_multipliers
from nft_jax.losses import KLS
from nft_jax.types import LossBatch
from nft_jax.update.token_scores import compile_scores


def take(program):
    """A step's record, and the log-probs of its recorded tokens by the weights before and after it."""
    updater = program.experiment.step(program.optimizer).updater
    before = jax.device_get(program.state.weights)
    scorer = compile_scores(updater, program.compiled, program.state, program.prompts)
    program.state, record = program.compiled(program.state, program.prompts)
    placed = program.experiment.place(before, program.experiment.model.weight_specs)
    given = program.prompts, record.last, record.watched.place_Q
    scores = [scorer(weights, program.state.frozen, *given) for weights in (placed, program.state.weights)]
    return jax.device_get((record, *scores))


@pytest.fixture(scope="module", params=["plain", "eight devices", "two replicas"])
def taken(request, programs):
    return take(programs(request.param))


@pytest.fixture(scope="module")
def all_watched(folder):
    """A step of two updates that records all groups that it trains on, in one round."""
    changes = {"verify__grader": grader("coin"), "updates_per_step": 2, "record__token_prompts": Q}
    changes |= {"selection__max_rounds": 1, "loss__kl_weight": 0.1, "optimizer__learning_rate": 3e-3}
    program = Program(small(**PACKING | changes), folder)
    yield program, *take(program)
    program.close()


def inside(record):
    """Whether a place of the recorded groups holds a token: `[Q, K, T]`."""
    groups, place_Q = record.last, record.watched.place_Q
    return np.arange(groups.token_QKT.shape[-1]) < groups.length_QK[place_Q][..., None]


def trained(record):
    return inside(record) & (record.watched.update_Q >= 0)[:, None, None]


def test_scores_by_the_weights_that_sampled_are_the_samplers(taken):
    record, before_QKT, _ = taken
    np.testing.assert_allclose(before_QKT, record.last.logp_QKT[record.watched.place_Q], atol=2e-5)


def test_scores_change_with_the_weights_and_are_zero_after_the_end(taken):
    record, before_QKT, after_QKT = taken
    assert np.abs(after_QKT - before_QKT).max() > 1e-4
    assert (before_QKT[~inside(record)] == 0).all()


def test_the_only_update_saw_the_tokens_by_the_weights_before_it(taken):
    record, before_QKT, _ = taken
    here, seen = trained(record), record.watched.seen
    assert here.any()
    np.testing.assert_allclose(seen.new[here], before_QKT[here], atol=2e-5)
    assert (seen.entropy[here] > 0).all()
    for value_QKT in seen:
        assert (value_QKT[~here] == 0).all()


def test_trained_groups_of_the_last_round_are_recorded_first(taken):
    record, _, _ = taken
    groups, watched = record.last, record.watched
    kept_Q = (groups.rate_Q > 0) & (groups.rate_Q < 1)
    assert watched.place_Q.tolist() == sorted(range(Q), key=lambda q: not kept_Q[q])[: len(watched.place_Q)]
    assert kept_Q[watched.place_Q[watched.update_Q >= 0]].all()


def test_each_update_saw_what_it_measured(all_watched):
    _, record, *_ = all_watched
    seen, statistics = record.watched.seen, record.applied.statistics
    ratio_QKT = np.where(trained(record), np.exp(seen.new - seen.old), 0)
    for update in range(2):
        mine_Q = record.watched.update_Q == update
        assert mine_Q.sum() * K == record.totals.answers[update] > 0
        np.testing.assert_allclose(seen.entropy[mine_Q].sum(), statistics.entropy[update], rtol=1e-4)
        np.testing.assert_allclose(ratio_QKT[mine_Q].sum(), statistics.ratio[update], rtol=1e-5)
        assert ratio_QKT[mine_Q].max() == pytest.approx(statistics.ratio_max[update], rel=1e-5)
    # Weights have changed between the two updates.
    assert np.abs(seen.new - seen.old)[record.watched.update_Q == 1].max() > 1e-3


def test_multipliers_are_those_of_the_loss_at_what_the_update_saw(all_watched):
    program, record, before_QKT, _ = all_watched
    groups, seen, loss = record.last, record.watched.seen, program.experiment.loss
    here, place_Q = trained(record), record.watched.place_Q
    _, _, number_M = np.nonzero(here)
    reward_QK1, rate_Q11 = groups.reward_QK[place_Q][..., None], groups.rate_Q[place_Q][:, None, None]

    def spread(value):
        return jnp.asarray(np.broadcast_to(value, here.shape)[here][None], jnp.float32)

    batch = LossBatch(
        old_logp_BT=spread(seen.old),
        answer_BT=jnp.arange(number_M.size, dtype=jnp.int32)[None],
        reward_BT=spread(reward_QK1),
        rate_BT=spread(rate_Q11),
        advantage_BT=spread(0),
        pair_BT=jnp.full((1, number_M.size), -1, jnp.int32),
    )
    expected_M = token_multipliers(loss, spread(seen.new), batch)[0]
    # The reference is what sampled.
    kl, options = KLS[program.config.loss.kl], program.config.loss
    slope = jax.grad(lambda new: jnp.sum(kl(new, spread(before_QKT), batch.answer_BT)))(spread(seen.new))[0]
    expected_M -= options.kl_weight * slope
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(seen.multiplier[here], expected_M, rtol=1e-3, atol=1e-3)


def test_nothing_is_recorded_for_no_prompts(folder):
    program = Program(small(**PACKING | {"verify__grader": grader("coin"), "record__token_prompts": 0}), folder)
    (record,) = program.take()
    assert record.watched is record.applied.statistics.seen is None
    updater = program.experiment.step(program.optimizer).updater
    assert compile_scores(updater, program.compiled, program.state, program.prompts) is None
    program.close()
