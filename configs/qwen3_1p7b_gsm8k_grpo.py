r"""GRPO of Qwen3-1.7B on GSM8K, a setting that several libraries publish: a check of this one against theirs.

Claim    None: nobody has run this file yet. The goal of the check is a training reward (`reward` in metrics.jsonl) of
         about 0.80 to 0.82 after 100 steps.
Recipe   The sizes and the optimizer of Tunix's example for this model (google/tunix, examples/math_gsm8k/
         train_gsm8k_qwen3.py): 32 prompts × 8 answers and one update a step, prompts and answers of up to 1,024
         tokens each, temperature 0.7, AdamW at 1e-6 with β₂ 0.95, no weight decay, no warmup, clip 100, no KL.
         Differs: the reward is 1 or 0 for the number alone, with nothing for the form; and the chat template is used
         as the tokenizer has it, so that the model thinks first if the template lets it.
Cost     1,720,574,976 weights. On v5e:2x4 the peak is 14.06 GiB of 15.75, by the compiler (`plan` with libtpu
         0.0.42.1).
Command  hf download Qwen/Qwen3-1.7B --local-dir FOLDER
         python -m nft_jax.plan  --config=qwen3_1p7b_gsm8k_grpo --topology=v5e:2x4
         python -m nft_jax.train --config=qwen3_1p7b_gsm8k_grpo --workdir=runs/qwen3 --config.model.path=FOLDER
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 100
    config.prompts_per_step = 32
    config.answers_per_prompt = 8

    # Qwen3-1.7B, as in its config.json; `model.path` gives the weights.
    config.model.vocab = 151936
    config.model.layers = 28
    config.model.width = 2048
    config.model.heads = 16
    config.model.kv_heads = 8
    config.model.head_size = 128
    config.model.mlp_width = 6144
    config.model.rope_theta = 1_000_000.0
    config.model.qkv_bias = False
    config.model.qk_norm = "head"
    config.model.dtype = "bfloat16"
    config.model.precision = "default"

    config.data.train = "gsm8k_train"
    config.data.test = "gsm8k_test"
    config.data.template = "chat"
    config.data.max_prompt_tokens = 1024
    config.rollout.max_answer_tokens = 1024
    config.rollout.temperature = 0.7
    config.rollout.slots = 32
    config.selection.max_rounds = 1
    config.verify.grader = "gsm8k"

    config.loss.name = "grpo"
    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_updates = 0
    config.optimizer.beta2 = 0.95
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 100.0
    config.packing.row_tokens = 2048
    config.packing.rows_per_micro_batch = 1

    config.evaluation.every_steps = 10
    config.evaluation.answers_per_problem = 1
    config.evaluation.temperature = 0.7
    config.record.checkpoint_every_steps = 10
    return config
