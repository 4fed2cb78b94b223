r"""The subject of `python -m nft_jax.compare --equivalence`: one rollout of a small model, and 16 updates on it.

Claim    On-policy the gradients of NFT equal those of GRPO (ω = √odds) and of Dr. GRPO (ω = 1 − r̂): for each parameter
         of a real model, on answers that it sampled, to the rounding of float64 and of float32, on 1 and on 8 devices.
         They differ as the policy drifts over updates on the same answers.
Task     That of configs/tiny.py with smaller numbers, after a warm start so short that most groups are mixed.
Cost     100,416 weights; 512 answers; a few minutes on two CPU cores, most of them for compiling.
Command  python -m nft_jax.compare --equivalence, which implies --config=equivalence and --workdir=runs/equivalence
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("tiny")
    config.prompts_per_step = 64
    config.answers_per_prompt = 8
    config.updates_per_step = 16

    config.model.layers = 2
    config.model.width = 64
    config.model.mlp_width = 192
    config.model.head_size = 16
    config.model.unrolled_layers = 1

    config.data.arithmetic_max_operand = 4
    config.warm_start.steps = 200
    config.warm_start.examples_per_update = 64
    config.warm_start.incorrect_share = 0.4
    # Eight devices are 4 data shards × 2.
    config.mesh.tensor = 2
    return config
