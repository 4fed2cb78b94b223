r"""The default experiment: a small model unlearns a misconception from verdicts alone.

Claim    A base trained on worked arithmetic, 65 % of which follows a systematic misconception, prefers the incorrect
         method though it knows both. Online NFT, with an exact-match verifier and no worked solution, reverses that.
Task     Three kinds of generated problems (`a-b+c-d=`, `a+b*c-d=`, `ax+b=c,x=`), answers in `\boxed{}`; train,
         validation and test problems are disjoint. Settings were chosen on validation problems; results are on test.
Cost     594,560 weights; six to nine minutes on two CPU cores that had other work too.
Command  python -m nft_jax.train --config=tiny --workdir=runs/tiny
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 30
    config.prompts_per_step = 64
    config.answers_per_prompt = 16
    config.updates_per_step = 2

    config.data.arithmetic_max_operand = 6
    config.data.max_prompt_tokens = 16
    config.rollout.max_answer_tokens = 16

    config.model.layers = 3
    config.model.width = 128
    config.model.heads = 4
    config.model.kv_heads = 2
    config.model.head_size = 32
    config.model.mlp_width = 384
    config.model.vocab_multiple = 8
    # On a CPU three layers are fastest unrolled and with nothing recomputed.
    config.model.unrolled_layers = 3
    config.model.remat = "none"

    config.warm_start.steps = 700
    config.warm_start.examples_per_update = 128
    config.warm_start.incorrect_share = 0.65
    config.warm_start.optimizer.name = "muon"
    config.warm_start.optimizer.learning_rate = 3e-3
    config.warm_start.optimizer.schedule = "linear"
    config.warm_start.optimizer.warmup_updates = 50
    config.warm_start.optimizer.beta2 = 0.99
    config.warm_start.optimizer.weight_decay = 0.0

    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0

    config.packing.row_tokens = 64
    config.packing.rows_per_micro_batch = 44
    config.evaluation.every_steps = 10
    return config
