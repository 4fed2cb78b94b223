"""Which ω and normaliser make NFT which other algorithm: what is found, and that the page says it."""

from pathlib import Path

import numpy as np
import pytest

from nft_jax.compare.equalities import DIFFERENT, EQUAL, GIVEN, PEERS, equal, markdown, table

PAGE = Path(__file__).parents[2] / "colab" / "normalizer_and_omega.md"


@pytest.fixture(scope="module")
def rows():
    return table()


def test_the_page_says_what_is_found(rows):
    assert markdown(rows) in PAGE.read_text(encoding="utf-8")


def test_omega_decides_and_the_normaliser_must_be_the_same(rows):
    """No pair is equal by its normalisers alone, or in spite of them."""
    relatives = {
        "one": {},
        "one_minus_rate": {"dr_grpo": "constant"},
        "sqrt_odds": {"grpo": "sequence_mean", "dapo": "token_mean"},
    }
    for row in rows:
        own = {"rft": "constant"} if "negative_weight" in row.options else relatives[row.options["omega"]]
        expected = {peer: EQUAL if own.get(peer) == row.normalizer else GIVEN for peer in own}
        assert row.peers == dict.fromkeys(PEERS, DIFFERENT) | expected


def test_off_policy_rft_alone_stays_what_nft_is_without_negatives():
    for row in table(drift=0.3):
        same = {peer for peer, relation in row.peers.items() if relation != DIFFERENT}
        assert same == ({"rft"} if "negative_weight" in row.options else set())


def test_equal_means_to_float64_rounding_and_not_both_nothing():
    values = np.random.default_rng(0).normal(size=(3, 4))
    assert equal(values * (1 + 1e-15), values)
    assert not equal(values * (1 + 1e-10), values)
    assert not equal(0 * values, 0 * values)
