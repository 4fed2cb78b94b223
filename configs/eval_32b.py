r"""Evaluation with the sampling of the NFT paper's 32B runs: temperature 1, top-p 0.7, answers of up to 7,168 tokens.

Claim    None: settings only. The paper gives avg@32 on AIME24, AIME25 and AMC23, and avg@1 on the other three.
Cost     32 + 1 answers a problem. The same command resumes an evaluation that was stopped.
Command  python -m nft_jax.evaluate --config=eval_32b --workdir=runs/qwen --config.model.path=FOLDER \
           --config.data.folder=DATA --problems=aime24,aime25,amc23
         python -m nft_jax.evaluate --config=eval_32b --workdir=runs/qwen --config.model.path=FOLDER \
           --config.data.folder=DATA --problems=math500,olympiadbench,minerva_math \
           --config.evaluation.answers_per_problem=1
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("eval_7b")
    # A context of 8,192, of which prompts have 1,024, as in the released script, which is called eval_local_7B.sh.
    config.rollout.max_answer_tokens = 7168
    config.evaluation.temperature = 1.0
    return config
