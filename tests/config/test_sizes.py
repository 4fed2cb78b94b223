"""Sizes that follow from several settings."""

import operator

import numpy as np
import pytest

from helpers.configs import changed
from nft_jax import config_files
from nft_jax.config import load
from nft_jax.config.sizes import row_tokens, row_tokens_needed, rows_per_micro_batch


@pytest.mark.parametrize(("unit", "shared", "needed"), [(1, True, 7), (1, False, 11), (2, True, 14), (2, False, 22)])
def test_row_tokens_needed_leaves_out_the_last_token(unit, shared, needed):
    assert row_tokens_needed(5, 7, unit, shared) == needed


def test_row_tokens_holds_the_longest_unit_or_what_the_config_gives():
    sizes = {"data__max_prompt_tokens": 5, "rollout__max_answer_tokens": 7}
    assert row_tokens(load(changed(**sizes)), "pair", shared=False) == 22
    assert row_tokens(load(changed(**sizes, packing__row_tokens=40)), "answer", shared=True) == 40


def rows(answer_tokens: int, units: int, **packing: int) -> int:
    sizes = {
        "data__max_prompt_tokens": 5,
        "rollout__max_answer_tokens": answer_tokens,
        "packing__rows_per_micro_batch": 0,
    }
    changes = sizes | {f"packing__{name}": value for name, value in packing.items()}
    return rows_per_micro_batch(load(changed(**changes)), "answer", True, units)


def test_rows_per_micro_batch_is_what_the_config_gives():
    assert rows(24, 1, rows_per_micro_batch=7) == 7


def test_rows_per_micro_batch_keeps_the_limits_of_memory_and_is_no_more_than_an_update_fills():
    random = np.random.default_rng(0)
    for _ in range(200):
        tokens, units, chunk = (int(random.integers(1, most)) for most in (40_000, 4000, 600))
        found = rows(tokens, units, logp_chunk_tokens=chunk)
        taken = found + 1, min(chunk, tokens)
        assert found == 1 or (found <= units and found * tokens <= 16384 and found * taken[1] <= 1024)
        # One row more would break one of them.
        assert found == units or taken[0] * tokens > 16384 or taken[0] * taken[1] > 1024, (tokens, units, chunk)


def test_presets_scale_with_prompts_and_updates():
    for name, sizes in (("gsm8k_qwen2", (256, 10, 512)), ("own_model", (32, 5, 64))):
        config = config_files.config(name)
        read = operator.attrgetter(
            "selection.candidates_per_round", "optimizer.warmup_updates", "evaluation.max_problems"
        )
        assert read(load(config)) == sizes
        config.prompts_per_step, config.updates_per_step = 24, 1
        assert read(load(config)) == (48, 2, 96)
        config.selection.candidates_per_round = 100
        config.prompts_per_step = 12
        assert read(load(config)) == (100, 2, 48)
