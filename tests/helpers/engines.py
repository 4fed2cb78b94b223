"""A small engine, its requests and its answers, and the trainer's log-probs of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from helpers.small_parts import (
    EOS_IDS,
    MODEL,
    TEMPERATURE,
    VOCABULARY,
    at_tokens,
    lively_weights,
    one_per_row,
    random_prompts,
)
from nft_jax.config import RolloutConfig
from nft_jax.models import transformer
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Tokens

Q, K, T = 8, 3, 8
KEY = jax.random.key(3)
GRAPH, _, AXES = transformer.abstract_model(MODEL, VOCABULARY)
PROMPTS = random_prompts(0, Q)
WEIGHTS = lively_weights(MODEL, seed=9)
LIMIT_QK = np.full((Q, K), T, np.int32)


def requests(greedy=False, start=0):
    """K answers to each prompt, numbered on from `start`."""
    number_QK = np.arange(start, start + Q * K, dtype=np.uint32).reshape(Q, K)
    return Requests(PROMPTS, np.arange(Q, dtype=np.int32), number_QK, LIMIT_QK, np.full((Q, K), greedy))


def program(mesh, *, model=MODEL, dtype="float32", lockstep=False, submit=None, stop_table=None, **settings):
    """A jitted engine: `(weights, requests) -> Round`."""
    graph, _, axes = transformer.abstract_model(dataclasses.replace(model, dtype=dtype), VOCABULARY)
    config = RolloutConfig(T, temperature=TEMPERATURE, **settings)
    engine = Engine(graph, axes, mesh, config, EOS_IDS, dtype, lockstep, stop_table)
    return jax.jit(lambda weights, asked: engine(engine.sampling_weights(weights), asked, KEY, submit))


def rounds_of(mesh, *, begins_next, lockstep=False, submit=None, count=3, **settings):
    """`count` rounds of the same prompts with numbers that go on, in one program: `weights -> [Round]`."""
    config = RolloutConfig(T, temperature=TEMPERATURE, **settings)
    engine = Engine(GRAPH, AXES, mesh, config, EOS_IDS, "float32", lockstep)

    def run(weights):
        sampling_weights = engine.sampling_weights(weights)
        asked = [requests(start=number * Q * K) for number in range(count + 1)]
        progress, done = None, []
        for number in range(count):
            two = jax.tree.map(lambda *x: jnp.stack(x), *asked[number : number + 2])
            progress = engine.start(sampling_weights, two) if progress is None else progress
            begins = begins_next and number + 1 < count
            progress, finished = engine.finish_round(sampling_weights, progress, two, KEY, begins, submit)
            done.append(finished)
        return done

    return jax.jit(run)


def sampler(mesh, **settings):
    """`(weights, requests) -> Rollout` on the host."""
    compiled = program(mesh, **settings)
    return lambda weights, asked: jax.device_get(compiled(weights, asked).rollout)


def teacher(dtype="float32", model=MODEL):
    """The full forward: `(weights, tokens) -> logp_BT`, as the trainer computes it."""
    graph, _, _ = transformer.abstract_model(dataclasses.replace(model, dtype=dtype), VOCABULARY)
    return jax.jit(lambda w, tokens: at_tokens(transformer.bind(graph, w), tokens, TEMPERATURE, 128)[0])


def teacher_forced(forward, weights, rollout, prompts=PROMPTS):
    """The trainer's log-probs of a rollout's tokens, laid out as the sampler's."""
    tokens = one_per_row(prompts, rollout.token_BT, rollout.length_B)
    logp_BS = np.asarray(forward(weights, Tokens(*tokens)))
    place_BT = np.repeat(prompts.length_Q, K)[:, None] + np.arange(T)
    return np.where(np.arange(T) < rollout.length_B[:, None], np.take_along_axis(logp_BS, place_BT, axis=1), 0)
