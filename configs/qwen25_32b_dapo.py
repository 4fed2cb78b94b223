r"""DAPO of Qwen2.5-32B on DAPO-Math-17k: `qwen25_32b_nft` with another algorithm.

Claim    The paper's, not ours: AIME24 44.1, MATH500 89.2, AIME25 33.4, AMC23 90.9, Olympiad 54.1, Minerva 47.5.
         Nobody has run this file yet.
Differs  clip-higher, rewards ±1 normalized in the group, averaged over the tokens of the update; a penalty
         of up to one reward grows over the last 4,096 tokens before the limit. The released code takes the mean over
         each micro-batch of 131,072 tokens and adds these means up: one or two, and up to four at the limit.
Cost     That of `qwen25_32b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_32b_dapo --topology=v5p:8x8x4
         python -m nft_jax.train --config=qwen25_32b_dapo --workdir=gs://BUCKET/dapo --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_32b_nft")
    config.loss.name = "dapo"
    config.loss.constant_tokens = 0.0  # of the normalizer "constant", which is another one here
    config.loss.dapo.sample_std = True
    config.loss.dapo.delta = 1e-6
    config.loss.dapo.overlong_buffer = 4096
    return config
