"""A peer of `nft_jax.bench`: the same step by TRL's GRPOTrainer. Run by another Python, which has torch and trl.

    python -P grpo_trl.py '{"vocab": 512, "layers": 8, …}'

Reads a line from its input for each step that is to be taken, and prints {"step": seconds, "rollout": seconds,
"tokens": sampled} for it. It imports nothing of this package.
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

MICRO_BATCH = 16  # answers; the best that was tried


class Lines(TrainerCallback):
    """Waits for a line before each step, and prints how long it took."""

    def on_step_begin(self, args, state, control, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        self.sampled, self.began = 0, time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        seconds = time.perf_counter() - self.began
        took = {"step": seconds, "rollout": self.graded - self.began, "tokens": self.sampled}
        print("\n" + json.dumps(took), flush=True)

    def reward(self, completions, completion_ids, **kwargs):
        """Every second answer's; and notes when answers were there, and how long they are."""
        self.graded = time.perf_counter()
        self.sampled += sum(len(row) for row in completion_ids)
        return [float(sum(row) % 2) for row in completion_ids]


def tokenizer(size):
    """Ids as words, of which none but the last is special."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token=f"t{size - 1}")


def main(workload):
    """Trains for as many steps as there are lines."""
    torch.manual_seed(0)
    V, ends, P, T = (workload[name] for name in ("vocab", "ends", "max_prompt_tokens", "max_answer_tokens"))
    Q, K = workload["prompts_per_step"], workload["answers_per_prompt"]
    settings = Qwen2Config(
        vocab_size=V,
        hidden_size=workload["width"],
        intermediate_size=workload["mlp_width"],
        num_hidden_layers=workload["layers"],
        num_attention_heads=workload["heads"],
        num_key_value_heads=workload["kv_heads"],
        head_dim=workload["head_size"],
        max_position_embeddings=P + T,
        tie_word_embeddings=workload["tied_embedding"],
        use_sliding_window=False,
    )
    model = Qwen2ForCausalLM(settings)
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
