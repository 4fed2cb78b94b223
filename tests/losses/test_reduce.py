"""The one sum over an answer, and the normalisers by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import draw_answers, pack, totals_of, units
from nft_jax import config_files
from nft_jax.config import load
from nft_jax.losses import NORMALIZERS, answer_sum, resolve, total_loss
from nft_jax.types import Totals


def test_answer_sum_by_hand():
    """Ids in any order, one without tokens (1), an interrupted one (2), NaN where there is no answer."""
    x_BT = jnp.array([[1, 2, 4, np.nan, 8, 16], [1, 2, 4, 8, 16, 32]], jnp.float32)
    answer_BT = jnp.array([[2, 2, 0, -1, 2, 5], [0, 0, 0, 0, 0, 0]], jnp.int32)
    expected = [[11, 11, 4, 0, 11, 16], [63] * 6]
    np.testing.assert_array_equal(answer_sum(x_BT, answer_BT), np.array(expected, np.float32))


def test_answer_sum_gradient_reaches_every_token_of_the_answer_and_no_other():
    answer_BT = jnp.array([[0, 0, -1, 1, 1, 1]], jnp.int32)
    gradient_BT = jax.grad(lambda x: answer_sum(x, answer_BT)[0, 3])(jnp.ones((1, 6), jnp.float32))
    np.testing.assert_array_equal(gradient_BT, np.array([[0, 0, 0, 1, 1, 1]], np.float32))


def test_answer_sum_never_builds_a_square():
    x_BT = jax.ShapeDtypeStruct((2, 4096), jnp.float32)
    jaxpr = jax.make_jaxpr(answer_sum)(x_BT, jax.ShapeDtypeStruct((2, 4096), jnp.int32))
    assert "4096,4096" not in str(jaxpr)


def expected_total(name, units_, losses):
    """`losses[i][j]`: per token losses of the j-th answer of the i-th unit."""
    flat = [answer for unit in losses for answer in unit]
    return {
        "sequence_mean": np.mean([np.mean(answer) for answer in flat]),
        "token_mean": np.mean(np.concatenate(flat)),
        "constant": sum(answer.sum() for answer in flat) / (10 * len(flat)),
        "pair_mean": np.mean([sum(answer.sum() for answer in unit) for unit in losses]),
    }[name]


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("name", NORMALIZERS)
@jax.enable_x64(True)
def test_normalizers(name, micro_batches):
    """Summed over micro-batches, with denominators that count them all, an objective is what its name says."""
    pairs = units(draw_answers(seed=10), "pair")
    losses = [[answer.logp for answer in pair] for pair in pairs]
    totals = totals_of(sum(pairs, []), np.float64)
    total = 0.0
    for part in range(micro_batches):
        packed = pack(pairs[part::micro_batches], length=20, dtype=np.float64)
        loss_BT = jnp.where(packed.batch.answer_BT >= 0, packed.logp_BT, 0.0)
        total += jax.jit(total_loss, static_argnums=(3, 4))(loss_BT, packed.batch, totals, name, 10)
    np.testing.assert_allclose(total, expected_total(name, pairs, losses), rtol=1e-12)


def released_weights(answers: int, tokens: int, gpus: int, shared: int) -> np.ndarray:
    """The weight of each token `[answer, token]` in the gradient of the NFT release on `gpus` GPUs.

    `shared` GPUs read the same answers, each a slice of their tokens. Each of them sums the losses of all these tokens
    over 1000, micro-batch by micro-batch; gathering the slices multiplies the gradient by `shared` on the way back and
    keeps the GPU's own slice. FSDP then averages over the GPUs.
    """
    total = np.zeros((answers, tokens))
    for gpu in range(gpus):
        group, slice_ = divmod(gpu, shared)
        mine = np.array_split(np.arange(answers), gpus // shared)[group]
        for micro_batch in np.array_split(mine, 3):
            place = np.arange(micro_batch.size * tokens)
            weight = np.where(place * shared // place.size == slice_, shared / 1000, 0.0) if place.size else place
            total[micro_batch] += weight.reshape(-1, tokens)
    return total / gpus


@pytest.mark.parametrize(("config", "gpus", "shared"), [("qwen25_math_7b", 32, 1), ("qwen25_32b", 128, 8)])
@pytest.mark.parametrize("name", ["nft", "rft", "dr_grpo"])
def test_constant_has_the_scale_of_the_nft_release(config, gpus, shared, name):
    """On an eighth of the GPUs and of the answers, of random length."""
    loaded = load(config_files.config(f"{config}_nft"))
    assert resolve(name, {}).normalizer == "constant"
    answers, tokens = loaded.prompts_per_step // loaded.updates_per_step * loaded.answers_per_prompt // 8, 24
    random = np.random.default_rng(0)
    inside = np.arange(tokens) < random.integers(1, tokens + 1, answers)[:, None]
    loss = np.where(inside, random.normal(size=inside.shape), 0.0)
    released = released_weights(answers, tokens, gpus // 8, shared)
    batch = pack([draw_answers(seed=11)[:1]], length=30).batch._replace(answer_BT=jnp.where(inside, 0, -1))
    totals = Totals(answers=jnp.float32(answers), tokens=jnp.float32(inside.sum()), pairs=jnp.float32(0))
    ours = total_loss(jnp.asarray(loss, jnp.float32), batch, totals, "constant", loaded.loss.constant_tokens)
    np.testing.assert_allclose(ours, np.sum(released * loss), rtol=1e-5)
    weight = NORMALIZERS["constant"](batch, totals, loaded.loss.constant_tokens)
    np.testing.assert_allclose(weight[inside], released[inside], rtol=1e-6)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_are_zero_outside_answers_and_finite_on_nothing(name):
    packed = pack([draw_answers(seed=11)[:3]], length=30)
    ids_BT = packed.batch.pair_BT if name == "pair_mean" else packed.batch.answer_BT
    for count in (0.0, 3.0):
        weight_BT = NORMALIZERS[name](packed.batch, Totals(*jnp.full(3, count, jnp.float32)), 10)
        assert np.isfinite(weight_BT).all()
        assert not np.any(weight_BT[ids_BT < 0])
        assert weight_BT.dtype == np.float32


def test_total_loss_names_an_unknown_normalizer():
    packed = pack([draw_answers(seed=11)[:1]], length=30)
    with pytest.raises(ValueError, match="did you mean 'token_mean'"):
        total_loss(packed.logp_BT, packed.batch, Totals(*jnp.ones(3, jnp.float32)), "tokenmean", 10)
