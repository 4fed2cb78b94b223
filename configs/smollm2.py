r"""A pretrained model improves itself on two CPU cores."""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 30
    config.prompts_per_step = 16
    config.answers_per_prompt = 8
    config.updates_per_step = 2

    config.model.path = "smollm2"
    config.model.remat = "none"

    config.data.train = "word_problems"
    config.data.template = "chat"
    config.data.max_prompt_tokens = 64
    config.rollout.max_answer_tokens = 24
    config.rollout.slots = 128
    config.selection.max_rounds = 1

    config.verify.grader = "gsm8k"

    # Worked solutions teach the form of an answer, and how long it is.
    config.warm_start.steps = 8
    config.warm_start.examples_per_update = 16
    config.warm_start.optimizer.learning_rate = 2e-5
    config.warm_start.optimizer.warmup_updates = 2
    config.warm_start.optimizer.weight_decay = 0.0

    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_updates = 4
    config.optimizer.weight_decay = 0.0

    config.packing.row_tokens = 48
    config.packing.rows_per_micro_batch = 4
    config.evaluation.answers_per_problem = 2
    config.evaluation.max_problems = 192
    config.evaluation.problems_per_batch = 64
    config.evaluation.every_steps = 10
    return config
