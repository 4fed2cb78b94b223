"""Rounding up: quotients and multiples."""

import jax.numpy as jnp
import pytest

from nft_jax.rounding import ceil_div, round_up


@pytest.mark.parametrize(("number", "divisor", "quotient"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (7, 1, 7)])
def test_ceil_div_and_round_up(number, divisor, quotient):
    assert ceil_div(number, divisor) == quotient
    assert round_up(number, divisor) == quotient * divisor


def test_ceil_div_takes_integer_arrays():
    assert ceil_div(jnp.array([0, 1, 4, 5]), 4).tolist() == [0, 1, 1, 2]
