"""The benchmark: a small model and a step of GRPO. The best settings of the peers were found on it too.

Claim    None: it is for timing. 16 prompts of 32 tokens × 8 answers of up to 128 tokens, one update with AdamW.
Cost     7.7 million weights in float32; about ten seconds a step on two CPU cores.
Command  python -m nft_jax.bench --config=bench --workdir=runs/w1                     W1: all answers of 128 tokens
         python -m nft_jax.bench --config=bench --workdir=runs/w2 --lengths=ends:8    W2: 8 of the 512 ids end an answer
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.prompts_per_step = 16
    config.answers_per_prompt = 8
    config.loss.name = "grpo"
    config.data.max_prompt_tokens = 32
    config.rollout.max_answer_tokens = 128
    # All answers at once: products of many rows cost least for each; then 96, 64, 48, 32, 24 and 16 slots.
    config.rollout.slots = 128
    config.rollout.max_halvings = 3
    config.rollout.halving_steps = 2

    config.model.vocab = 512
    config.model.layers = 8
    config.model.width = 256
    config.model.heads = 8
    config.model.kv_heads = 2
    config.model.head_size = 32
    config.model.mlp_width = 1024
    config.model.unrolled_layers = 8
    config.model.remat = "none"
    config.model.precision = "default"

    config.optimizer.warmup_updates = 0
    config.packing.rows_per_micro_batch = 8
    config.selection.max_rounds = 1
    config.verify.grader = "nft_jax.verify.coin:coin"
    return config
