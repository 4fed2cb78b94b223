r"""A pretrained Qwen2 or Qwen2.5 model on grade-school math: NFT from a Hugging Face folder, as in a 7B run.

Claim    None yet: no pretrained weights were available where this was written. The recipe is that of the paper (AdamW
         at 1e-6, ω = 1 − r̂, ε = 1, no KL), with shorter answers and smaller steps, which are enough for GSM8K, and a
         grader that reads 1,000 as 1000.
Cost     Training takes 20 bytes a weight: the weight, its gradient, the sum of gradients and the two moments of AdamW;
         and 2 bytes for the weights of the sampler. All are split over the mesh. Activations and the cache add to it.
Smaller  --config.prompts_per_step=16 --config.rollout.max_answer_tokens=256: candidates, warm-up, evaluated problems
         and micro-batches follow.
Command  hf download Qwen/Qwen2.5-Math-7B --local-dir FOLDER
         python -m nft_jax.train --config=gsm8k_qwen2 --config.model.path=FOLDER --config.data.train=TRAIN.jsonl \
           --config.data.test=TEST.jsonl --workdir=runs/gsm8k
         python -m nft_jax.evaluate --workdir=runs/gsm8k
         python -m nft_jax.export --workdir=runs/gsm8k --output=NEW_FOLDER
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 100
    config.prompts_per_step = 128
    config.answers_per_prompt = 16
    config.updates_per_step = 4

    config.model.dtype = "auto"
    config.model.precision = "auto"

    config.data.template = "qwen_math"
    config.data.max_prompt_tokens = 512
    config.rollout.max_answer_tokens = 1024
    # These follow the number of prompts and updates, also where the command line changes it: 256, 10 and 512 here.
    config.selection.candidates_per_round = 2 * config.get_ref("prompts_per_step")
    config.optimizer.warmup_updates = 5 * config.get_ref("updates_per_step") // 2
    config.evaluation.max_problems = 4 * config.get_ref("prompts_per_step")

    config.verify.grader = "math"
    config.optimizer.learning_rate = 1e-6
    config.packing.rows_per_micro_batch = 0

    config.evaluation.every_steps = 20
    config.evaluation.answers_per_problem = 4
    config.evaluation.temperature = 0.6
    config.evaluation.top_p = 0.7
    config.record.checkpoint_every_steps = 5
    return config
