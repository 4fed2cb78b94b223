"""A peer of `nft_jax.bench`: takes the same step by Tunix's GRPO learner.

    python -P grpo_tunix.py '{"vocab": 512, "layers": 8, …}'

Runs in a Python that has google-tunix. For each line of its input it takes a step, from prompts in hand to the new
weights, and prints {"step": seconds, "rollout": seconds, "tokens": sampled}. It imports nothing of this package.

Tunix leaves the id that ends an answer out of it; it is counted here, because it was sampled. If no id ends an answer,
Tunix gets one beyond the vocabulary. Its sampler draws by one key for all calls, so each step gets a key. Its embedding
starts at a standard deviation of 1, with which answers hardly ever end; all matrices start at 0.02 instead, as those of
the other peers do.
"""

import json
import math
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.rl import rl_cluster
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig

PAD = 0
MICRO_BATCH = 4  # prompts; the fastest of those tried


class Words:
    """A tokenizer whose words are ids, without a beginning id; 0 is padding, which no prompt has."""

    def __init__(self, end):
        self.end = end

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))

    def bos_id(self):
        return None

    def eos_id(self):
        return self.end

    def pad_id(self):
        return PAD


def random_model(workload):
    """Makes a Qwen2 of the workload's shape with normal matrices of standard deviation 0.02."""
    settings = qwen2.ModelConfig(
        num_layers=workload["layers"],
        vocab_size=workload["vocab"],
        embed_dim=workload["width"],
        hidden_dim=workload["mlp_width"],
        num_heads=workload["heads"],
        head_dim=workload["head_size"],
        num_kv_heads=workload["kv_heads"],
        rope_theta=10000,
        norm_eps=1e-6,
        use_tied_embedding=workload["tied_embedding"],
    )
    model = qwen2.Qwen2(settings, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)

    def initial(value):
        return jnp.asarray(0.02 * draw.normal(size=value.shape), value.dtype) if value.ndim > 1 else value

    nnx.update(model, jax.tree.map(initial, nnx.state(model)))
    return model


class Lines:
    """The learner's data: a batch for each line of the input. The next request ends a step, and prints its times.

    The learner requests one batch before its first step, to learn the batch's size.
    """

    def __init__(self, workload, model, rollout):
        self.workload, self.model, self.rollout = workload, model, rollout
        self.draw = np.random.default_rng(0)
        self.sampled, self.graded = 0, 0.0

    def __iter__(self):
        Q, P = self.workload["prompts_per_step"], self.workload["max_prompt_tokens"]
        last = self.workload["vocab"] - self.workload["ends"]
        for number, _ in enumerate(sys.stdin):
            prompts = self.draw.integers(PAD + 1, last, (Q, P)).tolist()
            self.sampled, self.rollout.seed = 0, number
            began = time.perf_counter()
            yield {"prompts": [" ".join(map(str, row)) for row in prompts]}
            jax.block_until_ready(nnx.state(self.model))
            times = {"step": time.perf_counter() - began, "rollout": self.graded - began, "tokens": self.sampled}
            print("\n" + json.dumps(times), flush=True)

    def reward(self, prompts, completions, **kwargs):
        """Rewards about every second answer; records when the answers were there, and their tokens."""
        self.graded = time.perf_counter()
        T = self.workload["max_answer_tokens"]
        rows = [[int(word) for word in text.split()] for text in completions]
        self.sampled += sum(min(len(row) + 1, T) for row in rows)
        return [float(sum(row) % 2) for row in rows]


def main(workload):
    """Takes a step for each line."""
    V, ends, P, T = (workload[name] for name in ("vocab", "ends", "max_prompt_tokens", "max_answer_tokens"))
    Q, K = workload["prompts_per_step"], workload["answers_per_prompt"]
    end_ids = list(range(V - ends, V)) or [V]
    rollout = RolloutConfig(
        max_tokens_to_generate=T,
        max_prompt_length=P,
        kv_cache_size=P + T,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        eos_tokens=end_ids,
    )
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.adamw(1e-6),
        eval_every_n_steps=1_000_000,
        max_steps=1_000_000,
        mini_batch_size=Q,
        train_micro_batch_size=math.gcd(MICRO_BATCH, Q),
        rollout_micro_batch_size=Q,
        compute_logps_micro_batch_size=Q,
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    model = random_model(workload)
    cluster = rl_cluster.RLCluster(
        actor=model,
        tokenizer=Words(end_ids[0]),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh={role: mesh for role in roles}, training_config=training, rollout_config=rollout
        ),
    )
    lines = Lines(workload, cluster.actor_trainer.model, rollout)
    GRPOLearner(cluster, GRPOConfig(num_generations=K, num_iterations=1, beta=0.0), lines.reward).train(lines)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
