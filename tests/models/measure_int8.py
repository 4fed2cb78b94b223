"""Measures the decode loop with the layers' matrices in int8 beside those in the compute dtype.

    python tests/models/measure_int8.py [LAYERS [UNROLLED]]

Prints the bytes of the sampling weights, tokens a second of each format and the ratio, by alternating turns in one
process, and how far the sampler's log-probs are from the trainer's. Weights are random, of the widths of SmolLM2-135M.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.small_parts import at_tokens, one_device
from nft_jax.config import ModelConfig, RolloutConfig
from nft_jax.models import transformer
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Prompts, Rollout, Tokens

Q, K, P, T, TURNS = 8, 4, 16, 48, 5
MODEL = ModelConfig(vocab=4096, width=576, heads=9, kv_heads=3, head_size=64, mlp_width=1536, qkv_bias=False)


def make_requests(random: np.random.Generator) -> Requests:
    """Returns Q full prompts of random tokens with K answers each, of exactly T tokens."""
    number_QK = np.arange(Q * K, dtype=np.uint32).reshape(Q, K)
    prompts = Prompts(random.integers(3, MODEL.vocab, (Q, P)).astype(np.int32), np.full(Q, P, np.int32))
    limit_QK, greedy_QK = np.full((Q, K), T, np.int32), np.zeros((Q, K), bool)
    return Requests(prompts, np.arange(Q, dtype=np.int32), number_QK, limit_QK, greedy_QK)


def make_sampler(config: ModelConfig, weights: str, requests: Requests) -> tuple[Engine, Callable[[Any], Rollout]]:
    """Returns the engine and its compiled rollout."""
    graph, _, axes = transformer.abstract_model(config, config.vocab)
    engine = Engine(graph, axes, one_device(), RolloutConfig(T, weights=weights), (), config.dtype, lockstep=False)
    return engine, jax.jit(lambda sampling: engine(sampling, requests, jax.random.key(0)).rollout)


def measure_gap(config: ModelConfig, weights: Any, requests: Requests, rollout: Rollout) -> np.ndarray:
    """Returns |log-prob of the sampler − log-prob of the trainer| of each sampled token."""
    graph, _, _ = transformer.abstract_model(config, config.vocab)
    token_BC = np.concatenate([np.repeat(requests.prompts.token_QP, K, axis=0), rollout.token_BT], axis=1)
    position_BC = np.broadcast_to(np.arange(P + T, dtype=np.int32), token_BC.shape)
    tokens = Tokens(token_BC, np.zeros_like(token_BC), position_BC)
    score = jax.jit(lambda weights: at_tokens(transformer.bind(graph, weights), tokens, 1.0, 32)[0])
    return np.abs(np.asarray(score(weights))[:, P:] - np.asarray(rollout.logp_BT))


def main() -> None:
    """Measures and prints."""
    layers, unrolled = (int(word) for word in (sys.argv[1:] + ["8", "1"][len(sys.argv) - 1 :])[:2])
    config = dataclasses.replace(MODEL, layers=layers, unrolled_layers=unrolled)
    weights = transformer.initial_weights(config, config.vocab, jax.random.key(0))
    requests = make_requests(np.random.default_rng(0))
    seconds, rollouts, ready = {"model": [], "int8": []}, {}, {}
    for name in seconds:
        engine, sample = make_sampler(config, name, requests)
        sampling = jax.jit(engine.sampling_weights)(weights)
        ready[name] = sample.lower(sampling).compile(), sampling
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(sampling))
        peak = ready[name][0].memory_analysis().temp_size_in_bytes
        print(f"{name}: {size / 2**20:.1f} MiB of weights, {peak / 2**20:.1f} MiB beside them while it samples")
    for _ in range(TURNS):
        for name, (sample, sampling) in ready.items():
            start = time.perf_counter()
            rollouts[name] = jax.block_until_ready(sample(sampling))
            seconds[name].append(time.perf_counter() - start)
    ratios = [one / other for one, other in zip(seconds["int8"], seconds["model"], strict=True)]
    for name, each in seconds.items():
        gap_BT, speed = measure_gap(config, weights, requests, rollouts[name]), Q * K * T / statistics.median(each)
        print(f"{name}: {speed:.0f} tokens/s (median), gap mean {gap_BT.mean():.2g}, largest {gap_BT.max():.2g}")
    print(f"seconds of int8 / seconds of model, turn by turn: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
