r"""NFT of Qwen2.5-0.5B-Instruct on GSM8K by low-rank adapters, for one accelerator with 16 GB (a T4 or v5e-1).

Claim    None: settings only. Nobody has trained with this file yet.
Differs  from `qwen25_0p5b_colab`: adapters of rank 16 on all matrices of the layers train, 1.75 % of the
         weights. The learning rate is ten times that of all weights, the ratio that Schulman et al. 2025 (Thinking
         Machines Lab, "LoRA Without Regret") found. `export` merges the adapters, or writes them as a folder for peft.
Cost     8,798,208 weights of adapters beside 494,032,768. Peak memory of the device by `plan`, GiB:
           T4   float32   4.64 of 14.90, by the compiler for GPUs  (all weights: 9.79)
           v5e  bfloat16  3.42 of 15.75, by the compiler for TPUs   (all weights: 10.40)
Command  hf download Qwen/Qwen2.5-0.5B-Instruct --local-dir FOLDER
         python -m nft_jax.train --config=qwen25_0p5b_colab_lora --workdir=runs/lora --config.model.path=FOLDER
         python -m nft_jax.plan  --config=qwen25_0p5b_colab_lora --topology=t4:1
         python -m nft_jax.plan  --config=qwen25_0p5b_colab_lora --topology=v5e:1x1 \
           --config.model.dtype=bfloat16 --config.model.precision=default
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("qwen25_0p5b_colab")
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.optimizer.learning_rate = 1e-5
    return config
