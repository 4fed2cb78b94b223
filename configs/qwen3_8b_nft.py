r"""NFT of Qwen3-8B-Base on DAPO-Math-17k: the recipe of `qwen25_math_7b_nft` with another model.

Claim    None: nobody has run this file yet, and the paper has no such run.
Cost     By `plan`: peak memory of a chip from its compiler, GiB; seconds a step, estimated for answers of 896 tokens
         and one round of candidates; that of v5p without the second forward pass for log π_old.
           v5e:8x8    56 slots  14.66 of 15.75  828 s
           v5p:4x4x4  128 slots 92.84 of 95.74  207 s   --config.mesh.tensor=1 --config.rollout.slots=128
Command  hf download Qwen/Qwen3-8B-Base --local-dir FOLDER
         python -m nft_jax.plan  --config=qwen3_8b_nft --topology=v5e:8x8
         python -m nft_jax.train --config=qwen3_8b_nft --workdir=gs://BUCKET/qwen3 --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    # Qwen3-8B-Base, as in its config.json.
    config.model.vocab = 151936
    config.model.layers = 36
    config.model.width = 4096
    config.model.heads = 32
    config.model.kv_heads = 8
    config.model.head_size = 128
    config.model.mlp_width = 12288
    config.model.rope_theta = 1_000_000.0
    config.model.qkv_bias = False
    config.model.qk_norm = "head"

    # The ids that this model's folder declares, not those of Qwen2.5-Math-7B.
    config.rollout.end_ids = ""
    config.rollout.slots = 56
    return config
