"""A peer of `nft_jax.bench`: takes the same step by TRL's GRPOTrainer.

    python -P grpo_trl.py '{"vocab": 512, "layers": 8, …}'

Runs in a Python that has torch and trl. For each line of its input it takes a step and prints {"step": seconds,
"rollout": seconds, "tokens": sampled}. It imports nothing of this package.
"""

import json
import math
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

MICRO_BATCH = 16  # answers; the fastest of those tried


class Lines(TrainerCallback):
    """Waits for a line before each step, and prints the step's times."""

    def on_step_begin(self, args, state, control, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        self.sampled, self.began = 0, time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        seconds = time.perf_counter() - self.began
        times = {"step": seconds, "rollout": self.graded - self.began, "tokens": self.sampled}
        print("\n" + json.dumps(times), flush=True)

    def reward(self, completions, completion_ids, **kwargs):
        """Rewards about every second answer; records when the answers were there, and their tokens."""
        self.graded = time.perf_counter()
        self.sampled += sum(len(row) for row in completion_ids)
        return [float(sum(row) % 2) for row in completion_ids]


def tokenizer(size):
    """Makes a tokenizer whose words are ids, of which only the last is special."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token=f"t{size - 1}")


def main(workload):
    """Takes a step for each line."""
    torch.manual_seed(0)
    V, ends, P, T = (workload[name] for name in ("vocab", "ends", "max_prompt_tokens", "max_answer_tokens"))
    Q, K = workload["prompts_per_step"], workload["answers_per_prompt"]
    model = Qwen2ForCausalLM(Qwen2Config(**workload["qwen2"]))
    ids = list(range(V - ends, V)) if ends else None
    model.generation_config.eos_token_id = ids
    words = tokenizer(V)
    draws = torch.randint(0, V - max(ends, 1), (256, P))
    prompts = Dataset.from_dict({"prompt": [" ".join(f"t{i}" for i in row.tolist()) for row in draws]})
    batch, lines = math.gcd(MICRO_BATCH, Q * K), Lines()
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=Q * K // batch,
        num_generations=K,
        max_completion_length=T,
        generation_kwargs={"eos_token_id": ids} if ids else {"min_new_tokens": T},
        temperature=1.0,
        beta=0.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_steps=1_000_000,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    GRPOTrainer(
        model=model,
        reward_funcs=lines.reward,
        args=arguments,
        train_dataset=prompts,
        processing_class=words,
        callbacks=[lines],
    ).train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
