r"""NFT of Qwen2.5-Math-7B on DAPO-Math-17k: the recipe of the paper's 7B run (arXiv 2505.18116).

Claim    The paper's, not ours: AIME24 32.0, MATH500 83.2, AIME25 18.3, AMC23 88.5, Olympiad 47.3, Minerva 40.8 after
         320 steps, from 13.3, 69.0, 5.5, 45.8, 34.7, 21.3. Nobody has run this file yet.
Recipe   512 prompts × 16 answers a step, from rounds of 3 × 512 candidates, at most 10; 16 updates of 512 answers;
         AdamW 1e-6, weight decay 0.1, clip 1; no KL, no entropy bonus; ω = 1 − r̂, ε = 1; truncated answers are
         incorrect. configs/official.md has it field by field: released, paper, here, and why.
Scale    The released trainer sums the tokens' losses over 1000 on each GPU, and FSDP averages the gradients over the
         GPUs: 1/32,000 of the sum over an update on the 32 GPUs of its README. `constant` divides by 512 answers ×
         constant_tokens, so 62.5 tokens give 1/(512 × 62.5) = 1/32,000. On 64 GPUs the same script gives 125.
Differs  On purpose: the scale does not depend on the number of devices; after 10 rounds a step trains on the groups it
         has, where the released code ends the run; groups that a step has too many of are dropped by both; training
         problems that overlap with one of the six benchmarks are left out; an update holds whole groups.
Cost     By `plan`: peak memory of a chip from its compiler, GiB; seconds a step, estimated for answers of 896 tokens
         and one round of candidates.
           v5e:8x8    176 slots  15.39 of 15.75  373 s
           v5e:16x16  128 slots  12.05 of 15.75  100 s   --config.rollout.slots=128
           v6e:8x8    448 slots  30.62 of 31.25  133 s   --config.rollout.slots=448
           v5p:4x4x4  128 slots  46.75 of 95.74  130 s   --config.rollout.slots=128 --config.mesh.tensor=1
Command  python -m nft_jax.plan  --config=qwen25_math_7b_nft --topology=v5e:8x8
         python -m nft_jax.train --config=qwen25_math_7b_nft --workdir=gs://BUCKET/nft --config.model.path=FOLDER
"""

from nft_jax.config import default


def get_config():
    config = default()
    config.steps = 320
    config.prompts_per_step = 512
    config.answers_per_prompt = 16
    config.updates_per_step = 16

    # Qwen2.5-Math-7B, as in its config.json; `model.path` gives the weights.
    config.model.vocab = 152064
    config.model.layers = 28
    config.model.width = 3584
    config.model.heads = 28
    config.model.kv_heads = 4
    config.model.head_size = 128
    config.model.mlp_width = 18944
    config.model.tied_embedding = False
    config.model.dtype = "bfloat16"
    # The inputs of the matrix products are bfloat16 already.
    config.model.precision = "default"

    config.data.train = "dapo_math_17k"
    config.data.validation = "aime24"
    # As the validation problems, the released code scores them by the training reward; other benchmarks by mathematics,
    # which `evaluate --config=eval_7b` does.
    config.data.test = "aime25"
    config.data.exclude = "math500, amc23, olympiadbench, minerva_math"
    config.data.template = "qwen_math"
    config.data.max_prompt_tokens = 512
    config.rollout.max_answer_tokens = 3584
    # <|endoftext|> alone: the released code reads on behind <|im_end|>.
    config.rollout.end_ids = "151643"
    config.rollout.slots = 176

    config.selection.candidates_per_round = 3 * 512
    config.selection.max_rounds = 10
    # The released trainer advances its learning rate once a step, from 0.
    config.optimizer.warmup_updates = 10 * 16
    config.optimizer.warmup_stair = 16
    config.loss.constant_tokens = 1000 * 32 / 512
    # By a second forward pass, as released: with ε = 1 each difference between sampler and trainer weakens incorrect
    # tokens of easy prompts (configs/official.md).
    config.old_logp = "recompute"
    config.packing.row_tokens = 4096
    config.packing.rows_per_micro_batch = 1
    config.packing.logp_chunk_tokens = 512
    config.mesh.tensor = 4

    config.verify.grader = "boxed_strict"
    config.verify.workers = 16
    config.evaluation.every_steps = 20
    config.evaluation.answers_per_problem = 32
    config.evaluation.temperature = 0.6
    config.evaluation.top_p = 0.7
    # A step takes longer than the notice that a spot machine gets; the steps since the last checkpoint are lost.
    config.record.checkpoint_every_steps = 2
    return config
