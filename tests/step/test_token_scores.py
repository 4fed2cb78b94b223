"""Scores of sampled tokens by the weights: with the weights that sampled, they are the sampler's."""

import jax
import numpy as np
import pytest

from nft_jax.update.token_scores import compile_scores


@pytest.fixture(scope="module", params=["plain", "eight devices"])
def scored(request, programs):
    """The groups of a step, and their scores by the weights before the step and after it."""
    program = programs(request.param)
    updater = program.experiment.step(program.optimizer).updater
    before = jax.device_get(program.state.weights)
    scorer = compile_scores(updater, program.compiled, 3, program.state, program.prompts)
    program.state, record = program.compiled(program.state, program.prompts)
    placed = program.experiment.place(before, program.experiment.model.weight_specs)
    first, after = (
        scorer(weights, program.state.frozen, program.prompts, record.last)
        for weights in (placed, program.state.weights)
    )
    return jax.device_get((record.last, first, after))


def test_scores_by_the_weights_that_sampled_are_the_samplers(scored):
    groups, before, _ = scored
    np.testing.assert_allclose(before.logp_QKT, groups.logp_QKT[before.place_Q], atol=2e-5)


def test_mixed_groups_are_scored_first(scored):
    groups, before, _ = scored
    is_mixed_Q = (groups.rate_Q > 0) & (groups.rate_Q < 1)
    order = sorted(range(len(is_mixed_Q)), key=lambda q: not is_mixed_Q[q])
    assert before.place_Q.tolist() == order[:3]


def test_scores_change_with_the_weights(scored):
    _, before, after = scored
    assert np.abs(after.logp_QKT - before.logp_QKT).max() > 1e-4


def test_scores_are_zero_after_the_end_and_entropies_positive_before_it(scored):
    groups, before, _ = scored
    inside_QKT = np.arange(groups.token_QKT.shape[-1]) < groups.length_QK[before.place_Q][..., None]
    assert (before.logp_QKT[~inside_QKT] == 0).all() and (before.entropy_QKT[~inside_QKT] == 0).all()
    assert (before.entropy_QKT[inside_QKT] > 0).all()


def test_no_scorer_for_no_prompts(programs):
    program = programs("plain")
    updater = program.experiment.step(program.optimizer).updater
    assert compile_scores(updater, program.compiled, 0, program.state, None) is None
