"""The cost of digests: its figures of a state of known size."""

import jax
import pytest

from nft_jax.bench.digests import make_state, measure
from nft_jax.run.damage import make_digests


def test_measure_saves_and_restores_the_state(tmp_path):
    figures = measure(1000, tmp_path / "run")
    assert figures.keys() == {"GB", "digest", "search", "save", "restore"}
    assert figures["GB"] == pytest.approx((3 * 1000 + 2) * 4 / 1e9)
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()


def test_make_state_has_as_many_numbers_as_given_and_depends_on_the_seed():
    state = make_state(1000)
    assert sum(x.size for x in jax.tree.leaves(state.weights)) == 1000
    assert make_digests(state) != make_digests(make_state(1000, seed=1))
