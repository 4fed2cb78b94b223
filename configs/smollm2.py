r"""A pretrained model improves itself on two CPU cores: SmolLM2-135M-Instruct, from a package of PyPI.

Claim    After eight updates on worked solutions, which teach the form of an answer, NFT raises the share of correct
         answers from verdicts alone, also on stories whose templates it never trained on. configs/smollm2.md has the
         numbers, and what was format.
Task     Word problems of grade school (nft_jax/data/word_problems.py) in the model's own chat format. Test problems
         are half of templates of training, half of others. The model is scored as it comes ("pretrained"), after the
         warm start ("base") and after the last step ("final").
Cost     134,515,008 weights in float32. configs/smollm2.md has seconds and memory.
Command  bash launch/local.sh --config=smollm2
         python -m nft_jax.train --config=smollm2 --workdir=runs/smollm2
         python -m nft_jax.compare --config=smollm2 --workdir=runs/smollm2_losses    # the page has a shorter one
         On a GPU, with larger steps and a larger model:
         python -m nft_jax.train --config=smollm2 --config.model.path=FOLDER --config.prompts_per_step=64 \
           --config.rollout.slots=512 --config.packing.rows_per_micro_batch=0 --workdir=runs/smollm2_gpu
         On problems of your own, such as GSM8K, whose prompts and answers are longer:
         python -m nft_jax.train --config=smollm2 --config.data.train=TRAIN.jsonl --config.data.test=TEST.jsonl \
           --config.data.max_prompt_tokens=256 --config.rollout.max_answer_tokens=160 \
           --config.packing.row_tokens=160 --workdir=runs/smollm2_gsm8k
"""

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

    # 128 worked solutions teach the form of an answer, and where it ends.
    config.warm_start.steps = 8
    config.warm_start.examples_per_update = 16
    config.warm_start.optimizer.learning_rate = 2e-5
    config.warm_start.optimizer.warmup_updates = 2
    config.warm_start.optimizer.weight_decay = 0.0

    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_updates = 4
    config.optimizer.weight_decay = 0.0

    # Micro-batches this small keep a run below 6 GiB with nothing recomputed.
    config.packing.row_tokens = 48
    config.packing.rows_per_micro_batch = 4

    config.evaluation.every_steps = 10
    config.evaluation.answers_per_problem = 2
    config.evaluation.max_problems = 192
    config.evaluation.problems_per_batch = 64

    config.compare.losses = "nft; rft; grpo; dapo"
    config.compare.updates_per_rollout = "2"
    # What 30 steps sample.
    config.compare.sampled_tokens = 37_000
    return config
