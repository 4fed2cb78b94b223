"""With `model.bitwise`, the sampler's log-prob of each token is the trainer's in every bit, however rows are packed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import EOS_IDS, TEMPERATURE, VOCABULARY, lively_weights, one_device
from nft_jax.config import ModelConfig, RolloutConfig, RopeScaling
from nft_jax.models import bitwise, transformer
from nft_jax.models.logprobs import logp_and_entropy
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Prompts, Tokens

Q, K, P, T = 8, 3, 60, 50
QWEN2 = ModelConfig(vocab=32, layers=2, width=48, heads=4, kv_heads=2, head_size=16, mlp_width=80, bitwise=True)
LLAMA = dataclasses.replace(
    QWEN2, qkv_bias=False, tied_embedding=False, rope_scaling=RopeScaling("llama3", 8.0, 32), unrolled_layers=2
)
QWEN3 = dataclasses.replace(
    QWEN2, qkv_bias=False, qk_norm="head", head_size=24, kv_heads=1, layer_kinds="wf", window=30
)
FAMILIES = {"qwen2": QWEN2, "llama": LLAMA, "qwen3": QWEN3}
# Fewer slots than a block of rows, as many, and more, which are no multiple of it.
SLOTS = {"qwen2": 7, "llama": 32, "qwen3": 40}
SLOW = [("qwen2", "bfloat16"), ("llama", "float32"), ("llama", "bfloat16"), ("qwen3", "float32")]
CASES = [("qwen2", "float32"), ("qwen3", "bfloat16"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
# Seed of the order, tokens of a row, tokens of a chunk of logits.
PACKINGS = [(0, P + T, 128), (1, 300, 64), (2, 700, 50)]


class Sampled:
    """Answers of a small model, some of which end early and some of which are cut, and their model."""

    def __init__(self, family: str, dtype: str):
        self.config = dataclasses.replace(FAMILIES[family], dtype=dtype)
        self.weights = lively_weights(dataclasses.replace(self.config, tied_embedding=False))
        if self.config.tied_embedding:
            del self.weights["head"]
        random = np.random.default_rng(0)
        length_Q = random.integers(1, P + 1, Q).astype(np.int32)
        token_QP = random.integers(3, VOCABULARY, (Q, P)) * (np.arange(P) < length_Q[:, None])
        self.prompts = Prompts(token_QP.astype(np.int32), length_Q)
        number_QK = np.arange(Q * K, dtype=np.uint32).reshape(Q, K)
        limit_QK = np.full((Q, K), T, np.int32)
        requests = Requests(self.prompts, np.arange(Q, dtype=np.int32), number_QK, limit_QK, np.zeros((Q, K), bool))
        graph, _, axes = transformer.abstract_model(self.config, VOCABULARY)
        rollout = RolloutConfig(T, temperature=TEMPERATURE, slots=SLOTS[family])
        engine = Engine(graph, axes, one_device(), rollout, EOS_IDS, dtype, lockstep=False)

        def sample(weights):
            return engine(engine.sampling_weights(weights), requests, jax.random.key(0)).rollout

        self.rollout = jax.device_get(jax.jit(sample)(self.weights))

    def score(self, tokens: Tokens, target_BT: np.ndarray, chunk: int) -> np.ndarray:
        """The trainer's log-probs of packed rows."""
        graph, _, _ = transformer.abstract_model(self.config, VOCABULARY)

        def compute(weights):
            return logp_and_entropy(transformer.bind(graph, weights), tokens, target_BT, TEMPERATURE, chunk)[0]

        return np.asarray(jax.jit(compute)(self.weights))

    def compare(self, seed: int, row_tokens: int, chunk: int) -> tuple[int, int]:
        """Packs the answers in a random order; returns how many log-probs are compared, and how many differ."""
        tokens, target_BT, sampler_BT = self.pack(np.random.default_rng(seed).permutation(Q * K), row_tokens)
        trainer_BT, is_compared = self.score(tokens, target_BT, chunk), ~np.isnan(sampler_BT)
        differs = trainer_BT.view(np.int32) != sampler_BT.view(np.int32)
        return int(is_compared.sum()), int((differs & is_compared).sum())

    def pack(self, order, row_tokens: int) -> tuple[Tokens, np.ndarray, np.ndarray]:
        """Rows of whole sequences in this order, the token after each place, the sampler's log-prob of it or NaN."""
        rows, used = [[]], 0
        for answer in order:
            length = self.prompts.length_Q[answer // K] + self.rollout.length_B[answer]
            if used + length > row_tokens:
                rows, used = [*rows, []], 0
            rows[-1].append(answer)
            used += length
        token_BT, position_BT, target_BT = (np.zeros((len(rows), row_tokens), np.int32) for _ in range(3))
        segment_BT, logp_BT = np.full_like(token_BT, -1), np.full(token_BT.shape, np.nan, np.float32)
        for row, answers in enumerate(rows):
            start = 0
            for segment, answer in enumerate(answers):
                p, n = self.prompts.length_Q[answer // K], self.rollout.length_B[answer]
                sequence = [*self.prompts.token_QP[answer // K, :p], *self.rollout.token_BT[answer, :n]]
                place = slice(start, start + p + n)
                token_BT[row, place], segment_BT[row, place], position_BT[row, place] = sequence, segment, range(p + n)
                target_BT[row, start : start + p + n - 1] = sequence[1:]
                logp_BT[row, start + p - 1 : start + p + n - 1] = self.rollout.logp_BT[answer, :n]
                start += p + n
        return Tokens(token_BT, segment_BT, position_BT), target_BT, logp_BT


@pytest.fixture(scope="module")
def sampled():
    return Sampled("qwen2", "float32")


@pytest.mark.parametrize(("family", "dtype"), CASES)
def test_sampler_and_trainer_agree_in_every_bit(family, dtype, sampled):
    found = sampled if (family, dtype) == CASES[0] else Sampled(family, dtype)
    lengths = found.rollout.length_B
    assert 0 < found.rollout.truncated_B.sum() < Q * K
    assert (np.repeat(found.prompts.length_Q, K) + lengths).max() > bitwise.BLOCK_COLUMNS
    counts = [found.compare(*packing) for packing in PACKINGS]
    print(f"{family} in {dtype}: {counts} log-probs compared, and different")
    assert counts == [(lengths.sum(), 0)] * len(PACKINGS)


@pytest.mark.parametrize(("name", "size"), [("BLOCK_COLUMNS", 32), ("BLOCK_ROWS", 1)])
def test_sampler_and_trainer_differ_with_blocks_of_two_sizes(sampled, monkeypatch, name, size):
    monkeypatch.setattr(bitwise, name, size)
    compared, different = sampled.compare(*PACKINGS[1])
    assert different > compared / 10


def test_gradient_is_that_of_the_ordinary_formulation(sampled):
    tokens, target_BT, logp_BT = sampled.pack(np.arange(Q), 300)

    def gradient(config):
        graph, _, _ = transformer.abstract_model(config, VOCABULARY)

        def objective(weights):
            scores = logp_and_entropy(transformer.bind(graph, weights), tokens, target_BT, TEMPERATURE, 64)
            return sum(jnp.sum(jnp.where(np.isnan(logp_BT), 0, score_BT)) for score_BT in scores)

        return jax.jit(jax.grad(objective))(sampled.weights)

    found, expected = gradient(sampled.config), gradient(dataclasses.replace(sampled.config, bitwise=False))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
