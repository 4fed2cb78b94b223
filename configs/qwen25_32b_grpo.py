r"""GRPO of Qwen2.5-32B on DAPO-Math-17k: `qwen25_32b_nft` with another algorithm.

Claim    The paper has none. Nobody has run this file yet.
Differs  the clipped ratio times (r − r̂)/std, averaged over each answer; every prompt trains, so one round is
         enough.
Cost     That of `qwen25_32b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_32b_grpo --topology=v5p:8x8x4
         python -m nft_jax.train --config=qwen25_32b_grpo --workdir=gs://BUCKET/grpo --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_32b_nft")
    config.loss.name = "grpo"
    config.loss.constant_tokens = 0.0  # of the normalizer "constant", which is another one here
    config.selection.candidates_per_round = config.prompts_per_step
    config.selection.max_rounds = 1
    return config
