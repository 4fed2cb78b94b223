r"""Evaluation with the sampling of the NFT paper's 7B runs: temperature 0.6, top-p 0.7, answers of up to 3,584 tokens.

Claim    None: settings only. The paper gives avg@32 on AIME24, AIME25 and AMC23, and avg@1 on the other three.
Cost     32 + 1 answers a problem. The same command resumes an evaluation that was stopped.
Command  python -m nft_jax.evaluate --config=eval_7b --workdir=runs/qwen --config.model.path=FOLDER \
           --config.data.folder=DATA --problems=aime24,aime25,amc23
         python -m nft_jax.evaluate --config=eval_7b --workdir=runs/qwen --config.model.path=FOLDER \
           --config.data.folder=DATA --problems=math500,olympiadbench,minerva_math \
           --config.evaluation.answers_per_problem=1
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.model.dtype = "bfloat16"
    # The inputs of the matrix products are bfloat16 already.
    config.model.precision = "default"
    config.data.template = "qwen_math"
    config.data.max_prompt_tokens = 1024
    config.rollout.max_answer_tokens = 3584
    config.verify.grader = "math"
    config.evaluation.max_problems = 0
    config.evaluation.answers_per_problem = 32
    config.evaluation.problems_per_batch = 8
    config.evaluation.temperature = 0.6
    config.evaluation.top_p = 0.7
    return config
