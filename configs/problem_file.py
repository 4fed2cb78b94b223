r"""Your own problem file and tokenizer, with a small model from random weights: a test of the program, not a result.

Claim    None about accuracy: ten million weights and a few minutes teach the format of a worked solution at best. The
         run shows that the program works with real problems, a real tokenizer and its vocabulary of 150,000 tokens.
Cost     About ten minutes on two CPU cores.
Command  python -m nft_jax.train --config=problem_file --workdir=runs/problem_file \
           --config.data.train=TRAIN.jsonl --config.data.test=TEST.jsonl --config.data.tokenizer=FOLDER
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 5
    config.prompts_per_step = 16
    config.answers_per_prompt = 8

    config.data.template = "plain_boxed"
    config.data.max_prompt_tokens = 160
    config.rollout.max_answer_tokens = 96
    # Such a model is hardly ever correct: more rounds would take longer and find nothing.
    config.selection.max_rounds = 1

    config.model.layers = 2
    config.model.width = 64
    config.model.heads = 4
    config.model.kv_heads = 2
    config.model.head_size = 16
    config.model.mlp_width = 256
    config.model.unrolled_layers = 2
    config.model.remat = "none"

    config.warm_start.steps = 60
    config.warm_start.examples_per_update = 8
    config.warm_start.optimizer.learning_rate = 3e-3
    config.warm_start.optimizer.weight_decay = 0.0

    config.optimizer.learning_rate = 1e-4
    config.packing.row_tokens = 256
    config.packing.rows_per_micro_batch = 4
    config.packing.logp_chunk_tokens = 64
    config.evaluation.max_problems = 32
    config.evaluation.answers_per_problem = 1
    config.evaluation.problems_per_batch = 32
    return config
