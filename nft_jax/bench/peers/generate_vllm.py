"""A peer of `nft_jax.bench`: samples the step's answers by vLLM's `generate`, without training.

    python -P generate_vllm.py '{"qwen2": {…}, "dtype": "bfloat16", …}'

Runs in a Python that has vllm, on a GPU. It saves random weights as a Hugging Face folder. vLLM reads it at the first
line of the input, when this package already holds its part of the GPU's memory. For each line it samples a batch and
prints {"rollout": seconds, "tokens": sampled}. It imports nothing of this package.
"""

import json
import os
import sys
import tempfile
import time

# Both read their environment when they are imported; the machine may have no network.
os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from vllm import LLM, SamplingParams

# Of the GPU's memory; `XLA_PYTHON_CLIENT_MEM_FRACTION` is the other process's.
MEMORY_SHARE = 0.4


def start(workload, folder):
    """Starts vLLM with random weights, which it reads from the folder."""
    model = Qwen2ForCausalLM(Qwen2Config(**workload["qwen2"])).to(getattr(torch, workload["dtype"]))
    model.save_pretrained(folder)
    return LLM(
        model=folder,
        skip_tokenizer_init=True,
        dtype=workload["dtype"],
        max_model_len=workload["max_prompt_tokens"] + workload["max_answer_tokens"],
        max_num_seqs=workload["prompts_per_step"] * workload["answers_per_prompt"],
        gpu_memory_utilization=MEMORY_SHARE,
        seed=0,
    )


def main(workload):
    """Samples a batch for each line."""
    torch.manual_seed(0)
    V, ends, P = (workload[name] for name in ("vocab", "ends", "max_prompt_tokens"))
    # The ids of the workload end an answer, and none that a model would declare.
    sampling = SamplingParams(
        n=workload["answers_per_prompt"],
        temperature=1.0,
        max_tokens=workload["max_answer_tokens"],
        stop_token_ids=list(range(V - ends, V)),
        ignore_eos=True,
        detokenize=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = None
        for _ in sys.stdin:
            engine = engine or start(workload, folder)
            prompt_QP = torch.randint(0, V - ends, (workload["prompts_per_step"], P)).tolist()
            began = time.perf_counter()
            done = engine.generate([{"prompt_token_ids": ids} for ids in prompt_QP], sampling, use_tqdm=False)
            seconds = time.perf_counter() - began
            tokens = sum(len(answer.token_ids) for group in done for answer in group.outputs)
            print("\n" + json.dumps({"rollout": seconds, "tokens": tokens}), flush=True)


# vLLM starts processes that import this file.
if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
