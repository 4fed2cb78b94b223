r"""A first run with your own model folder and problem file: `gsm8k_qwen2` with smaller steps and the model's own chat.

Claim    None: the run shows whether a model, its prompts and a grader fit each other. Most sizes follow from the
         numbers below, also where the command line changes these.
Prompts  The chat template of the model's tokenizer, with a system message that asks for the form that the grader
         reads. A base model has none: --config.data.template=plain_boxed --config.data.system='', or FILE.jinja.
Cost     20 bytes a weight, 128 answers of up to 256 tokens a round. Look at the table that it prints, and at
         `python -m nft_jax.plan --config=own_model --config.model.path=FOLDER`.
Command  python -m nft_jax.train --config=own_model --workdir=runs/own --config.model.path=FOLDER \
           --config.data.train=TRAIN.jsonl --config.data.test=TEST.jsonl
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("gsm8k_qwen2")
    config.steps = 50
    config.prompts_per_step = 16
    config.answers_per_prompt = 8
    config.updates_per_step = 2

    config.data.template = "chat"
    config.data.system = "Please reason step by step, and put your final answer within \\boxed{}."
    config.data.max_prompt_tokens = 256
    config.rollout.max_answer_tokens = 256
    config.selection.max_rounds = 2

    config.evaluation.every_steps = 10
    config.evaluation.answers_per_problem = 1
    return config
