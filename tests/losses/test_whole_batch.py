"""What is done to a whole optimizer batch: tokens that leave it, means over it, and its counts."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers.packed_answers import draw_answers, pack, totals_of, units
from nft_jax.losses import batch_mean, count_rows, reject
from nft_jax.losses.clip_cov import choose_by_chance
from nft_jax.losses.kl_cov import choose_largest
from nft_jax.losses.whole_batch import covariance, share_of_tokens, smallest, whiten


def draw_rows():
    answers = draw_answers(seed=20)
    return answers, pack([answers[i : i + 3] for i in range(0, len(answers), 3)], length=30, dtype=np.float32)


def test_count_rows_counts_what_the_list_holds():
    pairs = units(draw_answers(seed=20), "pair")
    answers, packed = sum(pairs, []), pack([sum(pairs[i : i + 2], []) for i in range(0, len(pairs), 2)], length=36)
    assert totals_of(answers).pairs > 2
    assert list(map(float, count_rows(packed.batch))) == list(map(float, totals_of(answers)))


def test_reject_takes_tokens_out_of_every_field_and_every_count():
    answers, packed = draw_rows()
    keep_BT = packed.batch.reward_BT == 1
    left = reject(packed.batch, keep_BT)
    kept = [answer for answer in answers if answer.reward == 1]
    assert 0 < len(kept) < len(answers)
    assert list(map(float, count_rows(left)[:2])) == list(map(float, totals_of(kept)[:2]))
    outside_BT = np.asarray(left.answer_BT) < 0
    np.testing.assert_array_equal(outside_BT, ~np.asarray(keep_BT & (packed.batch.answer_BT >= 0)))
    for name, value_BT in left._asdict().items():
        if value_BT is not None:
            assert np.all(np.asarray(value_BT)[outside_BT] == (-1 if name in ("answer_BT", "pair_BT") else 0)), name
            np.testing.assert_array_equal(
                np.asarray(value_BT)[~outside_BT], np.asarray(getattr(packed.batch, name))[~outside_BT]
            )


def test_batch_mean_is_over_answer_tokens():
    answers, packed = draw_rows()
    tokens = np.concatenate([answer.logp for answer in answers])
    np.testing.assert_allclose(batch_mean(packed.logp_BT, packed.batch), tokens.mean(), rtol=1e-6)
    empty = reject(packed.batch, jnp.zeros(packed.logp_BT.shape, bool))
    assert batch_mean(packed.logp_BT, empty) == 0


def test_whiten_gives_the_advantages_mean_0_and_variance_1_over_tokens():
    answers, packed = draw_rows()
    white_BT = np.asarray(whiten(packed.batch).advantage_BT)
    tokens = np.concatenate([np.full(len(answer.logp), answer.advantage) for answer in answers])
    expected = (tokens - tokens.mean()) / tokens.std(ddof=1)
    found = np.concatenate([white_BT[row, place] for row, place in packed.places])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.any(white_BT[np.asarray(packed.batch.answer_BT) < 0])


def test_covariance_sums_to_that_of_advantage_and_log_prob():
    answers, packed = draw_rows()
    parts_BT = np.asarray(covariance(packed.logp_BT, packed.batch))
    logp = np.concatenate([answer.logp for answer in answers])
    advantage = np.concatenate([np.full(len(answer.logp), answer.advantage) for answer in answers])
    np.testing.assert_allclose(parts_BT.sum(), np.cov(logp, advantage, ddof=0)[0, 1] * len(logp), rtol=1e-3, atol=1e-4)


def test_smallest_and_share_of_tokens():
    value_BT = jnp.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]], jnp.float32)
    among_BT = jnp.array([[True, True, True], [False, True, True]])
    for count, chosen in ((1, [1.0]), (3, [1.0, 2.0, 3.0]), (9, [1.0, 2.0, 3.0, 4.0, 5.0])):
        mask_BT = np.asarray(smallest(value_BT, among_BT, jnp.float32(count))) > 0
        assert sorted(np.asarray(value_BT)[mask_BT]) == chosen
    assert not np.any(smallest(value_BT, jnp.zeros_like(among_BT), jnp.float32(2)))
    answers, packed = draw_rows()
    tokens = sum(len(answer.logp) for answer in answers)
    for share, count in ((1e-6, 1), (1.0, tokens), (5 / tokens, 5), (5.5 / tokens, 5)):
        assert share_of_tokens(share, packed.batch) == count


def test_clip_cov_chooses_by_chance_between_the_bounds_and_not_what_is_clipped():
    _, packed = draw_rows()
    keys_BT = jax.random.split(jax.random.key(0), packed.logp_BT.shape)
    covariance_BT = np.asarray(covariance(packed.logp_BT, packed.batch))
    ratio_BT = np.exp(np.asarray(packed.logp_BT - packed.batch.old_logp_BT))
    advantage_BT = np.asarray(packed.batch.advantage_BT)
    clipped_BT = (advantage_BT > 0) & (ratio_BT > 1.2) | (advantage_BT < 0) & (ratio_BT < 0.8)
    among_BT = (np.asarray(packed.batch.answer_BT) >= 0) & (covariance_BT > -1) & (covariance_BT < 2) & ~clipped_BT
    bounds = {"covariance_low": -1.0, "covariance_high": 2.0}
    seen = set()
    for seed in range(3):
        batch = packed.batch._replace(key_BT=jax.vmap(jax.vmap(lambda k, s=seed: jax.random.fold_in(k, s)))(keys_BT))
        chosen_BT = np.asarray(choose_by_chance(packed.logp_BT, batch, share=0.05, **bounds).choice_BT) > 0
        assert chosen_BT.sum() == float(share_of_tokens(0.05, batch)) < among_BT.sum()
        assert not np.any(chosen_BT & ~among_BT)
        seen.add(chosen_BT.tobytes())
    assert len(seen) == 3


def test_kl_cov_chooses_the_largest_covariances():
    _, packed = draw_rows()
    chosen_BT = np.asarray(choose_largest(packed.logp_BT, packed.batch, share=0.1).choice_BT) > 0
    covariance_BT = np.asarray(covariance(packed.logp_BT, packed.batch))
    inside_BT = np.asarray(packed.batch.answer_BT) >= 0
    assert chosen_BT.sum() == float(share_of_tokens(0.1, packed.batch))
    assert covariance_BT[chosen_BT].min() > covariance_BT[inside_BT & ~chosen_BT].max()
