"""With which ω and normalizer NFT equals another algorithm, and the page that lists it."""

from pathlib import Path

import numpy as np
import pytest

from nft_jax.compare.equalities import (
    DIFFERENT,
    EQUAL,
    EQUAL_IF_GIVEN,
    PEERS,
    format_markdown,
    relate_to_peers,
    weights_match,
)

PAGE = Path(__file__).parents[2] / "colab" / "normalizer_and_omega.md"


@pytest.fixture(scope="module")
def rows():
    return relate_to_peers()


def test_markdown_is_the_table_of_the_page(rows):
    assert format_markdown(rows) in PAGE.read_text(encoding="utf-8")


def test_table_needs_the_omega_and_the_normalizer_of_the_peer(rows):
    """No pair is equal by its normalizers alone, or despite them."""
    relatives = {
        "one": {},
        "one_minus_rate": {"dr_grpo": "constant"},
        "sqrt_odds": {"grpo": "sequence_mean", "dapo": "token_mean"},
        "odds": {"maxrl": "constant"},
    }
    for row in rows:
        equal = {"rft": "constant"} if "negative_weight" in row.options else relatives[row.options["omega"]]
        expected = {peer: EQUAL if equal.get(peer) == row.normalizer else EQUAL_IF_GIVEN for peer in equal}
        assert row.peers == dict.fromkeys(PEERS, DIFFERENT) | expected


def test_table_off_policy_leaves_only_rft_equal_to_nft_without_negatives():
    for row in relate_to_peers(drift=0.3):
        same = {peer for peer, relation in row.peers.items() if relation != DIFFERENT}
        assert same == ({"rft"} if "negative_weight" in row.options else set())


def test_weights_match_to_float64_rounding_unless_all_are_zero():
    values = np.random.default_rng(0).normal(size=(3, 4))
    assert weights_match(values * (1 + 1e-15), values)
    assert not weights_match(values * (1 + 1e-10), values)
    assert not weights_match(0 * values, 0 * values)
