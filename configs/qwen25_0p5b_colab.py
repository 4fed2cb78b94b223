r"""NFT of Qwen2.5-0.5B-Instruct on GSM8K, for one accelerator with 16 GB: a T4 or a v5e-1, as on Colab.

Claim    None: settings only. Nobody has trained with this file yet.
Numbers  float32. A T4 has no bfloat16, and float16 would need loss scaling, which this package does not have.
         For a v5e-1 add --config.model.dtype=bfloat16 --config.model.precision=default.
Cost     494,032,768 weights: 1.84 GiB, and twice that for AdamW. Peak memory of the device by `plan`, GiB:
           T4   float32   9.79 of 14.90, by the compiler for GPUs. JAX takes 75 % of a GPU by default, here 11.18
           v5e  bfloat16  10.40 of 15.75, by the compiler for TPUs
         of which weights 1.84, moments 3.68, weights of the sampler 1.84 (0.92), 64 slots 1.12 (0.56).
         `--config.optimizer.offload=true` keeps the moments on the host.
Command  hf download Qwen/Qwen2.5-0.5B-Instruct --local-dir FOLDER
         python -m nft_jax.train --config=qwen25_0p5b_colab --workdir=runs/colab --config.model.path=FOLDER
         python -m nft_jax.plan  --config=qwen25_0p5b_colab --topology=t4:1
         python -m nft_jax.plan  --config=qwen25_0p5b_colab --topology=v5e:1x1 \
           --config.model.dtype=bfloat16 --config.model.precision=default
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 50
    config.prompts_per_step = 16
    config.answers_per_prompt = 8
    config.updates_per_step = 2

    # Qwen2.5-0.5B, as in its config.json; `model.path` gives the weights.
    config.model.vocab = 151936
    config.model.layers = 24
    config.model.width = 896
    config.model.heads = 14
    config.model.kv_heads = 2
    config.model.head_size = 64
    config.model.mlp_width = 4864
    config.model.rope_theta = 1e6
    config.model.dtype = "float32"

    config.data.train = "gsm8k_train"
    config.data.test = "gsm8k_test"
    config.data.template = "qwen_math"
    config.data.max_prompt_tokens = 256
    config.rollout.max_answer_tokens = 512
    config.rollout.slots = 64

    config.verify.grader = "math"
    config.packing.row_tokens = 1024
    config.packing.rows_per_micro_batch = 1
    config.evaluation.max_problems = 128
    config.evaluation.answers_per_problem = 1
    config.evaluation.problems_per_batch = 64
    config.record.checkpoint_every_steps = 25
    config.record.keep_checkpoints = 1
    return config
