"""The resolved config: sizes that must divide over the mesh."""

import pytest

from helpers.experiments import small
from nft_jax import losses
from nft_jax.parallel.mesh import make_mesh
from nft_jax.resolve import check_sizes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts_per_step": 6}, ["6 candidate prompts a round are not divisible by 4 data shards", "use 4 or 8"]),
        (
            {"selection__candidates_per_round": 2},
            ["2 candidate prompts a round are not divisible by 4 data shards; use 4"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 1, "loss__name": "grpo"},
            ["4 prompts × 1 answers = 4 answers are not divisible by 8 devices"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 3, "updates_per_step": 2, "loss__name": "dpo"},
            ["2 prompts × 1 pairs = 2 units are not divisible by 4 data shards", "updates_per_step=2"],
        ),
        ({"model__kv_heads": 1}, ["1 key-value heads are not divisible by mesh.tensor=2"]),
        (
            {"mesh__sequence_parallel": True, "packing__row_tokens": 31, "data__max_prompt_tokens": 15},
            [
                "config.packing.row_tokens=31 tokens over mesh.tensor=2",
                "use 32",
                "config.data.max_prompt_tokens=15",
                "use 16",
            ],
        ),
    ],
)
def test_check_sizes_names_sizes_that_divide(changes, words):
    config = small(**changes)
    with pytest.raises(ValueError, match="does not divide over the mesh") as raised:
        check_sizes(config, losses.resolve(config.loss.name, config.loss.options), make_mesh(4, 2))
    assert all(word in str(raised.value) for word in words), raised.value
