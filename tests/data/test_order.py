"""The order of prompts: every row once an epoch, another order each epoch, resumed from the cursor alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.data.order import prompt_order

COUNT = 64


@functools.partial(jax.jit, static_argnames="size")
def piece(cursor, size, seed=0):
    return prompt_order(jax.random.key(seed), size, cursor + jnp.arange(COUNT))


def stream(size, draws, seed=0):
    """The first rows drawn, in pieces of 64."""
    pieces = [np.asarray(piece(np.int32(start), size, seed)) for start in range(0, draws, COUNT)]
    return np.concatenate(pieces)[:draws]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097])
def test_prompt_order_has_every_row_once_an_epoch(size):
    epochs = stream(size, 3 * size).reshape(3, size)
    assert epochs.dtype == np.int32
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
    if size > 15:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[1], epochs[2])
        # The order is mixed, not only shifted or reversed: neighbors are separated.
        steps = np.abs(np.diff(epochs[0]))
        assert np.mean(steps == 1) < 0.3
        assert not np.array_equal(epochs[0], stream(size, size, seed=1))


@pytest.mark.parametrize("size", [2, 17, 65])
def test_prompt_order_of_small_tables_is_uniform_over_epochs(size):
    """Each row is first, in the middle and last about equally often: within 6 standard deviations."""
    epochs = 300
    orders = stream(size, epochs * size).reshape(epochs, size)
    for place in (0, size // 2, size - 1):
        counts = np.bincount(orders[:, place], minlength=size)
        assert np.abs(counts - epochs / size).max() < 6 * np.sqrt(epochs / size)


@pytest.mark.parametrize("size", [1, 17, 1000])
def test_prompt_order_resumes_from_the_cursor_alone(size):
    whole = stream(size, 1280)
    for cursor in (0, 1, 5, 16, 17, 63, 64, 65, 999, 1000, 1001, 1216):
        np.testing.assert_array_equal(piece(np.int32(cursor), size), whole[cursor : cursor + COUNT])


def test_prompt_order_depends_on_no_other_draw():
    draws = np.array([39, 2, 17, 2, 30], np.int32)
    np.testing.assert_array_equal(prompt_order(jax.random.key(0), 17, draws), stream(17, 40)[draws])
