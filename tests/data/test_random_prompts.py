"""Random prompts of a benchmark or a plan: full length, without EOS, the same for the same seed."""

import dataclasses

import numpy as np
import pytest

from helpers.experiments import small
from nft_jax.data.random_prompts import NumberTokenizer, random_dataset


def config(vocab):
    given = small(data__max_prompt_tokens=7)
    return dataclasses.replace(given, model=dataclasses.replace(given.model, vocab=vocab))


def test_random_dataset_has_full_prompts_without_eos():
    dataset = random_dataset(config(64), eos_count=3, prompts=50)
    table = dataset.tables["train"]
    assert dataset.tokenizer.eos_ids == (61, 62, 63)
    assert table.token_QP.shape == (50, 7)
    assert table.token_QP.max() < 61
    assert set(table.length_Q) == {7}
    np.testing.assert_array_equal(table.token_QP, random_dataset(config(64), 3, 50).tables["train"].token_QP)


def test_random_dataset_without_eos_ends_at_an_id_beyond_the_vocabulary():
    assert random_dataset(config(64), eos_count=0, prompts=2).tokenizer.eos_ids == (64,)


def test_random_dataset_needs_a_vocabulary():
    with pytest.raises(ValueError, match="config.model.vocab=0: .* give the vocabulary's size"):
        random_dataset(config(0), eos_count=1)


def test_number_tokenizer_round_trips():
    tokenizer = NumberTokenizer(64, (63,))
    assert tokenizer.encode("3 5") == [3, 5]
    assert tokenizer.decode([3, 5, 63, 4]) == "3 5"
