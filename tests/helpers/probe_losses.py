"""Losses that show what the update gives to a loss; named in configs as "helpers.probe_losses:NAME"."""

import jax
import jax.numpy as jnp

from nft_jax.losses import READS, batch_mean, declare, reject


def draw(key_BT):
    """A uniform draw for each token."""
    return jax.vmap(jax.vmap(jax.random.uniform))(key_BT)


@declare(normalizer="token_mean", reads=tuple(name for name in READS if name not in ("choice", "teacher_logp")))
def everything(logp_BT, batch):
    """Trains on every optional field, and reports each, times a number that only the token's target decides."""
    inside_BT = batch.answer_BT >= 0
    fields = {
        "sampler_logp": batch.sampler_logp_BT,
        "entropy": batch.entropy_BT,
        "truncated": batch.truncated_BT,
        "length": batch.length_BT,
        "complete": batch.complete_BT,
        "graded": batch.graded_BT,
        "token_reward": batch.token_reward_BT,
        "advantage": batch.advantage_BT,
        "draw": draw(batch.key_BT),
    }
    weight_BT = sum(jax.lax.stop_gradient(value_BT) for value_BT in fields.values())
    loss_BT = -weight_BT * logp_BT - batch.entropy_BT
    metrics = {name: jax.lax.stop_gradient(value_BT * logp_BT) for name, value_BT in fields.items()}
    return jnp.where(inside_BT, loss_BT, 0.0), metrics


def center(logp_BT, batch):
    """Writes how far each log-prob is from the mean over the minibatch."""
    return batch._replace(choice_BT=jnp.where(batch.answer_BT >= 0, logp_BT - batch_mean(logp_BT, batch), 0.0))


@declare(normalizer="token_mean", reads=("choice",), prepare=center, forward=True)
def centered_likelihood(logp_BT, batch):
    """Pulls every log-prob to the minibatch's mean."""
    return jnp.where(batch.answer_BT >= 0, batch.choice_BT * logp_BT, 0.0)


def keep_complete(logp_BT, batch):
    """Leaves truncated answers out."""
    assert logp_BT is None
    return reject(batch, batch.truncated_BT == 0)


@declare(normalizer="sequence_mean", reads=("truncated",), prepare=keep_complete)
def complete_likelihood(logp_BT, batch):
    """Maximizes the likelihood of answers that are not truncated."""
    return jnp.where(batch.answer_BT >= 0, -logp_BT, 0.0)


@declare(reads=("entropy", "sampler_logp"))
def likelihood_of_surprises(logp_BT, batch, *, floor: float = 0.5):
    """Learns correct tokens, weighed by the sampler's gap, where the entropy is above `floor`."""
    weight_BT = jnp.exp(jnp.minimum(batch.old_logp_BT - batch.sampler_logp_BT, 1.0))
    chosen_BT = (batch.answer_BT >= 0) & (batch.entropy_BT > floor)
    return jnp.where(chosen_BT, -weight_BT * batch.reward_BT * logp_BT, 0.0)
