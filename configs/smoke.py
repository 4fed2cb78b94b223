"""The run of `python -m nft_jax.smoke` on a new machine or slice: a small model, a few steps, all parts of a real run.

Claim    None: verdicts are random, so that groups are mixed and every step trains.
Cost     A model of 1.5 million weights; a few seconds a step on any device, and the compilation. The smoke test sets
         the sizes that depend on the number of devices.
Command  python -m nft_jax.smoke --workdir=runs/smoke, which runs its processes with --config=smoke and these sizes
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 5
    config.answers_per_prompt = 4
    config.updates_per_step = 1

    config.data.arithmetic_max_operand = 4
    config.data.max_prompt_tokens = 16
    config.rollout.max_answer_tokens = 64
    # Fewer slots than answers, so that slots are filled again.
    config.rollout.slots = 4

    config.model.layers = 2
    config.model.width = 256
    config.model.heads = 8
    config.model.kv_heads = 4
    config.model.head_size = 64
    config.model.mlp_width = 512

    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_updates = 0
    config.selection.max_rounds = 2
    config.verify.grader = "nft_jax.verify.coin:coin"
    config.verify.answers_per_submission = 2
    config.packing.rows_per_micro_batch = 1
    config.evaluation.answers_per_problem = 1
    config.evaluation.max_problems = 16
    config.record.checkpoint_every_steps = 1
    return config
