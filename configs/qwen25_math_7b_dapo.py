r"""DAPO of Qwen2.5-Math-7B on DAPO-Math-17k: `qwen25_math_7b_nft` with another algorithm.

Claim    The paper's, not ours: AIME24 33.1, MATH500 81.6, AIME25 18.7, AMC23 85.0, Olympiad 49.9, Minerva 39.3.
         Nobody has run this file yet.
Differs  clip-higher, rewards ±1 normalized in the group, averaged over the tokens of the update. The released code
         takes the mean over each micro-batch of 4,096 tokens and adds these means up, about 4 on a GPU where answers
         have 900 tokens: its gradient is as many times larger.
Cost     That of `qwen25_math_7b_nft`.
Command  python -m nft_jax.plan  --config=qwen25_math_7b_dapo --topology=v5e:8x8
         python -m nft_jax.train --config=qwen25_math_7b_dapo --workdir=gs://BUCKET/dapo --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    config.loss.name = "dapo"
    config.loss.constant_tokens = 0.0  # of the normalizer "constant", which is another one here
    config.loss.dapo.sample_std = True
    config.loss.dapo.delta = 1e-6
    return config
