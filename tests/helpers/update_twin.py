"""The gradient of an update without packing, micro-batches and chunks: one answer a row, weights of tokens by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers.small_parts import ANSWER_LIMIT, MODEL, PROMPT_LIMIT, TEMPERATURE, VOCABULARY, one_per_row
from nft_jax.losses import resolve
from nft_jax.models import transformer
from nft_jax.types import Groups, LossBatch, Prompts

ROWS = 32
S = PROMPT_LIMIT + ANSWER_LIMIT


@jax.jit
def log_probs_and_pull(weights, tokens, cotangent_BS):
    """Log-probs `[32, S]`, and the gradient of `sum(logp · cotangent)`."""
    graph, _, _ = transformer.abstract_model(MODEL, VOCABULARY)

    def logp_BS(weights):
        model = transformer.bind(graph, weights)
        logits_BSV = model.logits(model(tokens).reshape(ROWS * S, -1)).reshape(ROWS, S, -1)
        logp_BSV = jax.nn.log_softmax(logits_BSV / TEMPERATURE, axis=-1)
        chosen_BS = jnp.take_along_axis(logp_BSV[:, :-1], tokens.token_BT[:, 1:, None], axis=-1)[..., 0]
        return jnp.pad(chosen_BS, ((0, 0), (1, 0)))

    value, pull = jax.vjp(logp_BS, weights)
    return value, pull(cotangent_BS)[0]


class Reference:
    """The first `count` groups of a batch under given weights; all arrays have a row an answer."""

    def __init__(self, weights, groups: Groups, count: int, prompts: Prompts):
        self.weights, self.groups = weights, jax.tree.map(lambda x: x[:count], groups)
        self.count, self.K = count, groups.reward_QK.shape[1]
        self.prompts = Prompts(*(x[self.groups.prompt_Q] for x in prompts))
        self.length_B = self.groups.length_QK.reshape(-1)
        self.tokens = one_per_row(self.prompts, self.groups.token_QKT.reshape(-1, ANSWER_LIMIT), self.length_B)
        start_B1 = np.repeat(self.prompts.length_Q, self.K)[:, None]
        column_BS = np.arange(S)[None]
        self.answer_BS = (column_BS >= start_B1) & (column_BS < start_B1 + self.length_B[:, None])
        self.logp_BS = self._run(weights, np.zeros_like(self.answer_BS, np.float32))[0]

    def of_answers(self, value_BS):
        """Values at the answers' tokens, as `[Q, K, T]`; 0 beyond the ends."""
        result = np.zeros((self.count * self.K, ANSWER_LIMIT), np.float32)
        for b, inside_S in enumerate(self.answer_BS):
            result[b, : self.length_B[b]] = value_BS[b, inside_S]
        return result.reshape(self.count, self.K, ANSWER_LIMIT)

    def batch(self, advantage_QK, old_logp_QKT) -> LossBatch:
        """What the loss sees. `pair_BT` says that a group is a pair (of two answers)."""
        old_BS = np.zeros(self.answer_BS.shape, np.float32)
        for b, inside_S in enumerate(self.answer_BS):
            old_BS[b, inside_S] = old_logp_QKT.reshape(-1, ANSWER_LIMIT)[b, : self.length_B[b]]

        def spread(value_B):
            return np.where(self.answer_BS, np.reshape(value_B, (-1, 1)), 0).astype(np.float32)

        rate_B = np.repeat(self.groups.rate_Q, self.K)
        no_BS = np.where(self.answer_BS, 0, -1).astype(np.int32)
        return LossBatch(old_BS, no_BS, spread(self.groups.reward_QK), spread(rate_B), spread(advantage_QK), no_BS)

    def token_weight(self, normalizer):
        """The weight of each token, from its definition in words."""
        answers, tokens = len(self.length_B), self.length_B.sum()
        return {
            "constant": np.full(answers, 1 / (answers * ANSWER_LIMIT)),
            "token_mean": np.full(answers, 1 / tokens),
            "sequence_mean": 1 / (answers * self.length_B),
            "pair_mean": np.full(answers, 2 / answers),
        }[normalizer][:, None] * self.answer_BS

    def objective(self, name, normalizer, old_logp_QKT):
        """The objective, its gradient with regard to the log-probs `[B, S]`, and the loss's batch."""
        loss = resolve(name, {})
        advantage_QK = loss.advantage(jnp.asarray(self.groups.reward_QK), self.groups.length_QK, ANSWER_LIMIT)
        batch = self.batch(np.asarray(advantage_QK), old_logp_QKT)
        J = self.K if loss.unit == "pair" else 1  # a group of two is a pair, and shares a row
        joined = jax.tree.map(lambda x: jnp.asarray(x.reshape(len(x) // J, -1)), batch)
        weight = self.token_weight(normalizer).astype(np.float32).reshape(joined.pair_BT.shape)
        value, cotangent = jax.value_and_grad(lambda x: jnp.sum(loss.function(x, joined) * weight))(
            jnp.asarray(self.logp_BS.reshape(weight.shape))
        )
        return value, np.asarray(cotangent).reshape(self.answer_BS.shape), batch

    def gradient(self, cotangent_BS):
        """The gradient with regard to the weights of `sum(logp · cotangent)`."""
        return self._run(self.weights, cotangent_BS)[1]

    def logp_under(self, weights):
        """Log-probs `[B, S]` under other weights."""
        return self._run(weights, np.zeros_like(self.answer_BS, np.float32))[0]

    def _run(self, weights, cotangent_BS):
        values, gradient = [], jax.tree.map(np.zeros_like, weights)
        for start in range(0, len(cotangent_BS), ROWS):
            part = jax.tree.map(lambda x: _padded(x[start : start + ROWS]), (self.tokens, cotangent_BS))  # noqa: B023
            value, more = jax.device_get(log_probs_and_pull(weights, *part))
            values.append(value)
            gradient = jax.tree.map(np.add, gradient, more)
        values = np.concatenate(values)[: len(cotangent_BS)] if values else np.zeros_like(cotangent_BS)
        return values, gradient


def _padded(x):
    return np.concatenate([x, np.zeros((ROWS - len(x), *x.shape[1:]), x.dtype)])
