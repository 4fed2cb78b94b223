r"""NFT of Llama-3.1-8B-Instruct on DAPO-Math-17k: the recipe of `qwen25_math_7b_nft` with another model.

Claim    None: nobody has run this file yet, and the paper has no such run.
Prompts  The model's own chat template, after a system message that asks for a box, which the grader reads.
Cost     By `plan`: peak memory of a chip from its compiler, GiB; seconds a step, estimated for answers of 896 tokens
         and one round of candidates; those of v5p without the second forward pass for log π_old.
           v5e:8x8    64 slots  14.59 of 15.75  741 s
           v5p:4x4x4  128 slots  84.18 of 95.74  191 s  with --config.mesh.tensor=1 --config.rollout.slots=128
           v5p:4x4x4   64 slots  14.05 of 95.74  233 s  with the settings of this file
Command  hf download meta-llama/Llama-3.1-8B-Instruct --local-dir FOLDER
         python -m nft_jax.plan  --config=llama31_8b_nft --topology=v5e:8x8
         python -m nft_jax.train --config=llama31_8b_nft --workdir=gs://BUCKET/llama --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    # Llama-3.1-8B-Instruct, as in its config.json.
    config.model.vocab = 128256
    config.model.layers = 32
    config.model.width = 4096
    config.model.heads = 32
    config.model.kv_heads = 8
    config.model.head_size = 128
    config.model.mlp_width = 14336
    config.model.rope_theta = 500_000.0
    config.model.norm_epsilon = 1e-5
    config.model.qkv_bias = False
    config.model.rope_scaling.kind = "llama3"
    config.model.rope_scaling.factor = 8.0
    config.model.rope_scaling.original_tokens = 8192

    config.data.template = "chat"
    config.data.system = "Please reason step by step, and put your final answer within \\boxed{}."
    # The ids that this model's folder declares, not those of Qwen2.5-Math-7B.
    config.rollout.end_ids = ""
    config.rollout.slots = 64
    return config
