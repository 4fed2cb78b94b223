r"""NFT of Qwen2.5-Math-7B on DAPO-Math-17k by low-rank adapters on int8 matrices, for one accelerator of 16 GB.

Claim    None: settings only. Nobody has trained with this file yet.
Differs  from `qwen25_math_7b_nft`: adapters of rank 16 train, on matrices that are rounded to int8 when they are loaded
         (`lora.base`); 16 prompts a step, 16 slots, answers of at most 1,024 tokens, one update a step, a learning rate
         ten times as high (as in `qwen25_0p5b_colab_lora`).
Cost     40,370,176 weights of adapters beside 7,615,616,512. One device keeps 10.01 GiB, from shapes and layouts: 8.19
         of frozen weights, which the sampler reads as they are, 0.45 of adapters and moments, 1.31 of cache. With
         `lora.base=model`: 30.19. Activations are not counted. The peaks below are the compilers'.
Command  hf download Qwen/Qwen2.5-Math-7B --local-dir FOLDER
         python -m nft_jax.train --config=qwen25_7b_qlora --workdir=runs/qlora --config.model.path=FOLDER
         python -m nft_jax.plan  --config=qwen25_7b_qlora --topology=v5e:1x1    # 10.05 GiB of 15.75, libtpu 0.0.42.1
         python -m nft_jax.plan  --config=qwen25_7b_qlora --topology=l4:1       # 10.20 of 22.35, CUDA plugin 0.10.2
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_math_7b_nft")
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.base = "int8"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_updates = 10
    config.optimizer.warmup_stair = 1

    config.prompts_per_step = 16
    config.updates_per_step = 1
    config.selection.candidates_per_round = 16
    config.selection.max_rounds = 2
    config.rollout.max_answer_tokens = 1024
    config.rollout.slots = 16
    config.packing.row_tokens = 1536
    config.mesh.tensor = 1
    return config
