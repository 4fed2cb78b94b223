"""Sizes that follow from several settings."""

import pytest

from helpers.configs import changed
from nft_jax.config import load
from nft_jax.config.sizes import row_tokens, row_tokens_needed


@pytest.mark.parametrize(("unit", "shared", "needed"), [(1, True, 7), (1, False, 11), (2, True, 14), (2, False, 22)])
def test_row_tokens_needed_leaves_out_the_last_token(unit, shared, needed):
    assert row_tokens_needed(5, 7, unit, shared) == needed


def test_row_tokens_holds_the_longest_unit_or_what_the_config_gives():
    sizes = {"data__max_prompt_tokens": 5, "rollout__max_answer_tokens": 7}
    assert row_tokens(load(changed(**sizes)), "pair", shared=False) == 22
    assert row_tokens(load(changed(**sizes, packing__row_tokens=40)), "answer", shared=True) == 40
