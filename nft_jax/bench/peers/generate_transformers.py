"""A peer of `nft_jax.bench`: the step's answers, all in one batch, by transformers' `generate`. Nothing is trained.

    python -P generate_transformers.py '{"vocab": 512, "layers": 8, …}'

Run by another Python, which has torch and transformers. Reads a line from its input for each batch that is to be
sampled, and prints {"rollout": seconds, "tokens": sampled} for it. It imports nothing of this package.
"""

import json
import sys
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def main(workload):
    """Samples as many batches as there are lines."""
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Qwen2ForCausalLM(settings).eval().to(device)
    end_ids = torch.arange(V - ends, V, device=device)
    # Its own default would be an id of the pretrained model, or stop at none of ours.
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
        # A row that has ended is padded: its tokens are those until its end, which is one of them.
        ended_BT = torch.isin(row_BT, end_ids.cpu()).int().cumsum(1)
        tokens = int((ended_BT == 0).sum() + (ended_BT.max(1).values > 0).sum())
        print("\n" + json.dumps({"rollout": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
