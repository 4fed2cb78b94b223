r"""Dr. GRPO of Qwen2.5-Math-7B on DAPO-Math-17k: `qwen25_math_7b_nft` with another algorithm.

Claim    The paper's, not ours: AIME24 31.8, MATH500 83.4, AIME25 15.7, AMC23 80.2, Olympiad 49.6, Minerva 38.2.
         Nobody has run this file yet.
Differs  the clipped ratio times r − r̂, at NFT's scale; every prompt trains, so one round is enough.
Cost     That of `qwen25_math_7b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_math_7b_dr_grpo --topology=v5e:8x8
         python -m nft_jax.train --config=qwen25_math_7b_dr_grpo --workdir=gs://BUCKET/drg --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    config.loss.name = "dr_grpo"
    config.selection.candidates_per_round = config.prompts_per_step
    config.selection.max_rounds = 1
    return config
