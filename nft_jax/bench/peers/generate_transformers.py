"""A peer of `nft_jax.bench`: samples the step's answers in one batch by transformers' `generate`, without training.

    python -P generate_transformers.py '{"vocab": 512, "layers": 8, …}'

Runs in a Python that has torch and transformers. For each line of its input it samples a batch and prints
{"rollout": seconds, "tokens": sampled}. It imports nothing of this package.
"""

import json
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def main(workload):
    """Samples a batch for each line."""
    torch.manual_seed(0)
    V, ends, P, T = (workload[name] for name in ("vocab", "ends", "max_prompt_tokens", "max_answer_tokens"))
    Q, K = workload["prompts_per_step"], workload["answers_per_prompt"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2ForCausalLM(Qwen2Config(**workload["qwen2"])).eval().to(device, getattr(torch, workload["dtype"]))
    end_ids = torch.arange(V - ends, V, device=device)
    # The default would be an id of the pretrained model.
    model.generation_config.eos_token_id = end_ids.tolist() or None
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": T}
    for _ in sys.stdin:
        prompt_QP = torch.randint(0, V - ends, (Q, P), device=device)
        began = time.perf_counter()
        row_BT = model.generate(
            prompt_QP.repeat_interleave(K, 0),
            attention_mask=torch.ones(Q * K, P, dtype=torch.long, device=device),
            pad_token_id=0,
            **sampling,
        )[:, P:].cpu()
        seconds = time.perf_counter() - began
        # A row is padded after its end. Its tokens are those up to the end, which counts too.
        ended_BT = torch.isin(row_BT, end_ids.cpu()).int().cumsum(1)
        tokens = int((ended_BT == 0).sum() + (ended_BT.max(1).values > 0).sum())
        print("\n" + json.dumps({"rollout": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
