"""Small parts that tests build on: a model of two layers with lively weights, meshes, prompts and groups of answers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compare.gradients import make_training_step
from nft_jax.config import Config, DataConfig, LossConfig, ModelConfig, PackingConfig, RolloutConfig
from nft_jax.models import logprobs, transformer
from nft_jax.models.attention_backends import XLA, AttentionBackend
from nft_jax.parallel.mesh import make_mesh
from nft_jax.step import Step
from nft_jax.types import Groups, Prompts, Tokens

# Real token ids, of which some end an answer, and rows of the embedding: the last three are padding.
VOCABULARY, ROWS, EOS_IDS = 21, 24, (1, 2)
MODEL = ModelConfig(
    vocab=ROWS, layers=2, width=32, heads=4, kv_heads=2, head_size=8, mlp_width=48, tied_embedding=False, remat="none"
)
# The same sizes with parts of other families: norms after what reads and before, layers of two kinds, and more.
MIXED = dataclasses.replace(
    MODEL,
    layer_kinds="wf",
    window=4,
    window_rope_theta=50.0,
    norms="both",
    norm_offset=1.0,
    qk_norm="all",
    query_scalar=20.0,
    activation="gelu_tanh",
    embedding_scaled=True,
)
TEMPERATURE = 0.8
PROMPT_LIMIT, ANSWER_LIMIT = 5, 7


def one_device():
    return make_mesh(1, 1, jax.devices()[:1])


def eight_devices():
    return make_mesh(4, 2, jax.devices()[:8])


def lively_weights(config: ModelConfig, seed: int = 0) -> Any:
    """Weights under which every part matters: biases and norms are not at their start, logits differ by some nats."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        name, value = path[-1].key, random.normal(size=leaf.shape)
        if name.endswith("norm"):
            value = 1 + 0.3 * value
        elif name.endswith("bias"):
            value = 0.5 * value
        elif name in ("embedding", "head"):
            value = 0.4 * value
        else:
            value = value * leaf.shape[-2] ** -0.5
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, transformer.abstract_model(config, VOCABULARY)[1])


def at_tokens(model: Any, tokens: Tokens, temperature: float, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies of a row's tokens given those before, at the token itself; 0 at the row's first."""
    values = logprobs.logp_and_entropy(model, tokens, following(tokens.token_BT), temperature, chunk)
    return tuple(jnp.pad(x_BT[:, :-1], ((0, 0), (1, 0))) for x_BT in values)


def following(token_BT: Any) -> jax.Array:
    """The token after each in its row; 0 after the last."""
    return jnp.pad(jnp.asarray(token_BT)[:, 1:], ((0, 0), (0, 1)))


def random_prompts(seed: int, count: int, limit: int = PROMPT_LIMIT) -> Prompts:
    """Prompts of all lengths from 1 to `limit`."""
    random = np.random.default_rng(seed)
    length_Q = 1 + random.permutation(count) % limit
    token_QP = random.integers(3, VOCABULARY, (count, limit)) * (np.arange(limit) < length_Q[:, None])
    return Prompts(token_QP.astype(np.int32), length_Q.astype(np.int32))


def random_groups(seed: int, Q: int, K: int, T: int = ANSWER_LIMIT) -> Groups:
    """Mixed groups with answers of 1 to T tokens, one for each of the first Q prompts; log-probs are left at 0."""
    random = np.random.default_rng(seed)
    length_QK = random.integers(1, T + 1, (Q, K)).astype(np.int32)
    token_QKT = random.integers(1, VOCABULARY, (Q, K, T))
    reward_QK = random.permuted(np.arange(K) < random.integers(1, K, (Q, 1)), axis=1).astype(np.float32)
    return Groups(
        prompt_Q=np.arange(Q, dtype=np.int32),
        token_QKT=np.where(np.arange(T) < length_QK[..., None], token_QKT, 0).astype(np.int32),
        logp_QKT=np.zeros((Q, K, T), np.float32),
        length_QK=length_QK,
        truncated_QK=length_QK == T,
        verdict_QK=(1 - reward_QK).astype(np.int32),
        reward_QK=reward_QK,
        rate_Q=reward_QK.mean(axis=1, dtype=np.float32),
    )


def one_per_row(prompts: Prompts, answer_BT: np.ndarray, length_B: np.ndarray) -> Tokens:
    """Each answer behind its prompt in a row of its own; a prompt's answers are adjacent."""
    K = len(answer_BT) // len(prompts.length_Q)
    prompt_BP, start_B = (np.repeat(np.asarray(x), K, axis=0) for x in prompts)
    B, S = len(answer_BT), prompt_BP.shape[1] + answer_BT.shape[1]
    token_BS, segment_BS = np.zeros((B, S), np.int32), np.full((B, S), -1, np.int32)
    for b in range(B):
        end = start_B[b] + length_B[b]
        token_BS[b, :end] = [*prompt_BP[b, : start_B[b]], *answer_BT[b, : length_B[b]]]
        segment_BS[b, :end] = 0
    return Tokens(token_BS, segment_BS, np.where(segment_BS == 0, np.arange(S), 0).astype(np.int32))


def small_config(loss_name: str = "nft", **changes: Any) -> Config:
    """A step of 8 prompts × 4 answers that are packed several to a row, two rows to a micro-batch."""
    values = {
        "prompts_per_step": 8,
        "answers_per_prompt": 4,
        "old_logp": "sampler",
        "model": MODEL,
        "data": DataConfig(max_prompt_tokens=PROMPT_LIMIT),
        "rollout": RolloutConfig(max_answer_tokens=ANSWER_LIMIT, temperature=TEMPERATURE),
        "loss": LossConfig(name=loss_name),
        "packing": PackingConfig(row_tokens=30, rows_per_micro_batch=2, logp_chunk_tokens=8),
    }
    return Config(**values | changes)


def training_step(
    config: Config, mesh: jax.sharding.Mesh, model: ModelConfig | None = None, attention: AttentionBackend = XLA
) -> Step:
    """The step's training half: what samples and grades is missing. `model` may be what a `Config` refuses."""
    loss = config.resolve_loss()
    return make_training_step(config, loss, mesh, model or config.model, VOCABULARY, attention)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """No tensor is off by more than `tolerance` of its largest element."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        largest = np.abs(other).max()
        assert largest > 0, path
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest, err_msg=jax.tree_util.keystr(path))
