r"""NFT of Qwen2.5-32B on DAPO-Math-17k: the recipe of the paper's 32B run (arXiv 2505.18116).

Claim    The paper's, not ours: AIME24 37.8, MATH500 88.4, AIME25 31.5, AMC23 93.8, Olympiad 55.0, Minerva 48.9 after
         320 steps, from 4.1, 68.6, 1.0, 45.0, 31.1, 27.9. Nobody has run this file yet.
Recipe   As `qwen25_math_7b_nft`, with prompts of up to 2,048 tokens and answers of up to 14,336: the released script,
         beside which the published figures are of a context of 32K.
Scale    The 128 GPUs of the README are 16 groups of 8 that share a sequence. Each group sums its tokens' losses over
         1000, and the average over the GPUs is one over the groups: 1/16,000 = 1/(512 × 31.25). On 256 GPUs: 62.5.
Cost     By `plan`: peak memory of a chip from its compiler, GiB; seconds a step, estimated for answers of 3,584 tokens
         and one round of candidates.
           v5p:8x8x4  160 slots  91.90 of 95.74  1,324 s
           v6e:16x16   32 slots  27.11 of 31.25          --config.rollout.slots=32 (40 need 10 MiB too much)
Command  python -m nft_jax.plan  --config=qwen25_32b_nft --topology=v5p:8x8x4
         python -m nft_jax.train --config=qwen25_32b_nft --workdir=gs://BUCKET/nft32 --config.model.path=FOLDER
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    # Qwen2.5-32B, as in its config.json.
    config.model.layers = 64
    config.model.width = 5120
    config.model.heads = 40
    config.model.kv_heads = 8
    config.model.mlp_width = 27648
    config.model.rope_theta = 1_000_000.0
    config.model.norm_epsilon = 1e-5

    config.data.max_prompt_tokens = 2048
    config.rollout.max_answer_tokens = 14336
    config.rollout.slots = 160
    config.packing.row_tokens = 16384
    config.mesh.tensor = 8
    # The layer inputs of one row would take 10 GiB of each chip.
    config.mesh.sequence_parallel = True
    config.loss.constant_tokens = 1000 * 16 / 512
    return config
