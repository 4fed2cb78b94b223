"""The default experiment."""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 60
    config.prompts_per_step = 64
    config.answers_per_prompt = 16
    config.updates_per_step = 2
    config.model.update(
        dict(
            vocab_multiple=8,
            layers=4,
            width=128,
            heads=4,
            kv_heads=2,
            head_size=32,
            mlp_width=384,
            remat="none",
            unroll=4,
        )
    )
    config.data.prompt_limit = 16
    config.data.largest = 6
    config.rollout.answer_limit = 16
    config.packing.row_tokens = 64
    config.packing.rows_per_micro_batch = 44
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0
    config.warm_start.steps = 1200
    config.warm_start.batch = 128
    config.warm_start.wrong_share = 0.65
    config.warm_start.optimizer.update(
        dict(name="muon", learning_rate=3e-3, weight_decay=0.0, schedule="linear", beta2=0.99, warmup_updates=50)
    )
    config.evaluation.every = 15
    return config
