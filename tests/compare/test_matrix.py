"""Which losses are equal on-policy: all pairs, on random groups of every rate."""

import numpy as np
import pytest

from nft_jax.compare import matrix
from nft_jax.compare.matrix import DIFFERENT, EQUAL, FACTOR, relate
from nft_jax.losses import LOSSES

# Losses in a family have the same gradient, up to the factor of RLOO, K / (K − 1).
FAMILIES = [
    {"nft omega=one"},
    {"nft omega=one_minus_rate", "dr_grpo", "rloo"},
    {"nft omega=sqrt_odds", "grpo", "dapo", "gspo", "gmpo", "cispo", "sapo", "dppo", "kl_cov"},
    {"nft omega=odds", "nft omega=odds ratio=mean", "maxrl"},
    {"nft omega=one negative_weight=0", "rft", "psr"},
]


@pytest.fixture(scope="module")
def on_policy():
    return matrix.make_matrix(matrix.shown_losses())


def test_matrix_has_every_loss(on_policy):
    assert {label.split()[0] for label in on_policy} == set(LOSSES)


def test_matrix_has_these_families_and_else_losses_of_their_own(on_policy):
    found = [set(family) for family in matrix.find_families(on_policy)]
    assert [family for family in FAMILIES if family not in found] == []
    assert all(family in FAMILIES or len(family) == 1 for family in found)


def test_matrix_gives_rloo_its_factor(on_policy):
    for row, column in (("rloo", "dr_grpo"), ("rloo", "nft omega=one_minus_rate")):
        assert on_policy[row][column].relation == FACTOR
        np.testing.assert_allclose(on_policy[row][column].factor, 8 / 7, rtol=1e-12)
        np.testing.assert_allclose(on_policy[column][row].factor, 7 / 8, rtol=1e-12)
    assert on_policy["gspo"]["grpo"] == (EQUAL, 1.0)


def test_matrix_off_policy_leaves_rft_equal_to_nft_without_negatives():
    labels = ("nft omega=one negative_weight=0", "rft", "nft omega=odds", "maxrl", "rloo", "dr_grpo", "gspo", "grpo")
    losses = {label: loss for label, loss in matrix.shown_losses().items() if label in labels}
    found = matrix.find_families(matrix.make_matrix(losses, drift=0.3))
    # RLOO and Dr. GRPO clip the same ratio, so their factor stays.
    assert sorted(map(sorted, (family for family in found if len(family) > 1))) == [
        ["dr_grpo", "rloo"],
        ["nft omega=one negative_weight=0", "rft"],
    ]


def test_relate_knows_factors_and_signs():
    one = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert relate(one, one) == (EQUAL, 1.0)
    assert relate(2 * one, one) == (FACTOR, 2.0)
    assert relate(-one, one) == relate(0 * one, one) == relate(one, 0 * one) == (DIFFERENT, 0.0)


def test_markdown_names_a_family_in_a_line(on_policy):
    (line,) = [line for line in matrix.format_markdown(on_policy).splitlines() if "`rloo`" in line]
    assert "`dr_grpo`" in line and "(× 1.143)" in line
