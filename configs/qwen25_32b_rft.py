r"""RFT of Qwen2.5-32B on DAPO-Math-17k: `qwen25_32b_nft` with another algorithm.

Claim    The paper's, not ours: AIME24 29.9, MATH500 86.2, AIME25 19.1, AMC23 92.4, Olympiad 45.3, Minerva 44.1.
         Nobody has run this file yet.
Differs  the log-likelihood of correct answers; incorrect answers do not train.
Cost     That of `qwen25_32b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_32b_rft --topology=v5p:8x8x4
         python -m nft_jax.train --config=qwen25_32b_rft --workdir=gs://BUCKET/rft --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_32b_nft")
    config.loss.name = "rft"
    return config
