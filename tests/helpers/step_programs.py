"""The compiled step of small experiments, one for each loss, with engines and steps that a test can watch."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from helpers.experiments import Program, grader, on_host
from nft_jax.losses import declare
from nft_jax.rollout.engine import Engine
from nft_jax.step import Step

Q, K = 8, 4
ROUNDS = 4


@declare(normalizer="token_mean")
def tempered_likelihood(logp_BT, batch, *, strength: float = 1.0):
    """An own loss, named in the config as "helpers.step_programs:tempered_likelihood"."""
    return jnp.where(batch.answer_BT >= 0, -strength * (batch.reward_BT - batch.rate_BT) * logp_BT, 0.0)


def cost_of_boxes(token_QKT, length_QK, *, texts):
    """A reward of tokens, as a user would write it."""
    return jnp.array([-0.1 * ("box" in text) for text in texts], jnp.float32)[token_QKT]


class LyingEngine:
    """An engine that reports each log-prob one nat too high: what trusts the sampler can be told from what doesn't."""

    def __init__(self, engine: Engine):
        self.engine, self.sampling_weights, self.start = engine, engine.sampling_weights, engine.start

    def finish_round(self, *given):
        progress, done = self.engine.finish_round(*given)
        rollout = done.rollout
        inside_BT = jnp.arange(rollout.token_BT.shape[1])[None] < rollout.length_B[:, None]
        rollout = rollout._replace(logp_BT=rollout.logp_BT + inside_BT.astype(jnp.float32))
        return progress, done._replace(rollout=rollout)


class WatchedEngine:
    """An engine that shows the host every request."""

    def __init__(self, engine: Engine):
        self.engine, self.sampling_weights, self.start = engine, engine.sampling_weights, engine.start
        self.requests = []

    def finish_round(self, sampling_weights, progress, requests, *given):
        jax.debug.callback(lambda number_QK: self.requests.append(np.array(number_QK)), requests.request_QK[0])
        return self.engine.finish_round(sampling_weights, progress, requests, *given)


@dataclass(frozen=True)
class WatchedStep(Step):
    """A step that shows the host each round's groups and the training buffer."""

    rounds: list = field(default_factory=list)
    buffers: list = field(default_factory=list)

    def sample_round(self, sampling_weights, prompts, cursor, *given):
        progress, graded = super().sample_round(sampling_weights, prompts, cursor, *given)
        jax.debug.callback(lambda *seen: self.rounds.append(on_host(seen)), cursor, graded.groups)
        return progress, graded

    def pack(self, buffer, trained, prompts, step, watched_Q=None):
        jax.debug.callback(lambda *seen: self.buffers.append(on_host(seen)), buffer, trained)
        return super().pack(buffer, trained, prompts, step, watched_Q)


class UnevenStep(Step):
    """A step of short answers, but for one in seven."""

    def next_requests(self, *given):
        requests = super().next_requests(*given)
        return requests._replace(limit_QK=uneven_limits(requests.request_QK, self.config.rollout.max_answer_tokens))


def uneven_limits(request_QK, most):
    """The limit of each request of an uneven step."""
    number_QK = jnp.asarray(request_QK).astype(jnp.int32)
    return jnp.where(number_QK % 7 == 0, most, 1 + number_QK % 3)


# Several answers to a row, several micro-batches, not as many on every data shard.
PACKING = {"packing__row_tokens": 50, "packing__rows_per_micro_batch": 1}
# Beside the plain one: each loss in a program that also takes another path of the step.
PROGRAMS = {
    "plain": (PACKING, {}),
    "eight devices": (PACKING | {"mesh__data": 4, "mesh__tensor": 2}, {}),
    # Rows of tokens are split over `tensor` too, so they must divide by it.
    "two replicas": (
        {"mesh__replica": 2, "mesh__data": 2, "mesh__tensor": 2, "mesh__sequence_parallel": True}
        | PACKING
        | {"rollout__lockstep": "yes", "old_logp": "recompute"},
        {},
    ),
    "rft": (
        {"loss__name": "rft", "old_logp": "recompute", "updates_per_step": 2},
        {"wrap_engine": LyingEngine},
    ),
    "grpo": ({"loss__name": "grpo", "loss__kl_weight": 0.1}, {}),
    "dr_grpo": ({"loss__name": "dr_grpo", "strict_on_policy": True}, {"wrap_engine": LyingEngine}),
    "dapo": (
        {
            "loss__name": "dapo",
            "selection__carry": True,
            "selection__candidates_per_round": 2 * Q,
            "selection__rate_below": 0.75,
            "packing__row_tokens": 50,
        },
        {"step_class": WatchedStep, "wrap_engine": WatchedEngine},
    ),
    "dpo": ({"loss__name": "dpo", "updates_per_step": 2, "packing__rows_per_micro_batch": 3}, {}),
    "contrast": ({"loss__name": "contrast"}, {}),
    "partial": (
        PACKING | {"rollout__partial": True, "rollout__slots": 20, "rollout__max_age_steps": 2, "mesh__data": 2},
        {"step_class": UnevenStep},
    ),
    # With a grader of rewards, and a reward of each token.
    "own": (
        {"loss__name": f"{__name__}:tempered_likelihood", "loss__own__strength": 2.0, "selection__carry": True}
        | {"verify__grader": grader("share"), "verify__correct_from": 0.5}
        | {"loss__token_reward": f"{__name__}:cost_of_boxes"},
        {},
    ),
}


def weights_that_end_at_once(program: Program):
    """Returns weights under which every answer ends at once: all hidden states have the direction of EOS."""
    weights = jax.tree.map(np.zeros_like, program.weights)
    weights["embedding"] += 1
    weights["norm"] += 1
    weights["head"][program.experiment.tokenizer.eos_ids[0]] = 1
    return weights
