r"""RFT of Qwen2.5-Math-7B on DAPO-Math-17k: `qwen25_math_7b_nft` with another algorithm.

Claim    The paper's, not ours: AIME24 33.7, MATH500 79.8, AIME25 13.4, AMC23 79.7, Olympiad 44.3, Minerva 38.6.
         Nobody has run this file yet.
Differs  the log-likelihood of correct answers; incorrect answers do not train.
Cost     That of `qwen25_math_7b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_math_7b_rft --topology=v5e:8x8
         python -m nft_jax.train --config=qwen25_math_7b_rft --workdir=gs://BUCKET/rft --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    config.loss.name = "rft"
    return config
