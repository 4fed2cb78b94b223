"""Settings without effect beside others: each is named with the setting that is why, and only where it was changed."""

import pytest

from helpers.configs import changed
from nft_jax import config_files
from nft_jax.config import load
from nft_jax.config.idle import describe_idle, describe_idle_in_study

TEACHER = {"distillation__teacher": "folder", "distillation__alone": True}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lora__alpha": 32.0}, "config.lora.alpha=32.0: no effect with lora.rank=0"),
        ({"loss__kl": "k2"}, "config.loss.kl='k2': no effect with loss.kl_weight=0"),
        ({"loss__correction_high": 3.0}, "config.loss.correction_high=3.0: no effect with loss.correction=none"),
        (
            {"loss__correction": "tis", "old_logp": "recompute", "loss__correction_low": 0.1},
            "config.loss.correction_low=0.1: no effect with loss.correction=tis",
        ),
        (
            {"loss__name": "grpo", "selection__rate_above": 0.1},
            "config.selection.rate_above=0.1: no effect with loss grpo, whose groups are all",
        ),
        (
            {"loss__normalizer": "token_mean", "loss__constant_tokens": 9.0},
            "config.loss.constant_tokens=9.0: no effect with the normalizer token_mean",
        ),
        ({"distillation__weight": 0.5}, "config.distillation.weight=0.5: no effect with distillation.teacher=''"),
        (
            {"loss__nft__epsilon": 0.5, **TEACHER},
            "config.loss.nft.epsilon: no effect with distillation.alone=true",
        ),
        (
            {"base": "runs/a", "warm_start__steps": 5, "warm_start__examples_per_update": 8},
            "config.warm_start.steps=5, config.warm_start.examples_per_update=8: no effect with base=runs/a",
        ),
        (
            {"model__rope_scaling__kind": "linear", "model__rope_scaling__beta_fast": 9.0},
            "config.model.rope_scaling.beta_fast=9.0: no effect with model.rope_scaling.kind=linear",
        ),
        ({"rollout__halving_steps": 2}, "config.rollout.halving_steps=2: no effect with rollout.max_halvings=0"),
        ({"rollout__max_age_steps": 2}, "config.rollout.max_age_steps=2: no effect with rollout.partial=false"),
        (
            {"rollout__partial": True, "rollout__max_halvings": 1, "old_logp": "sampler"},
            "config.rollout.max_halvings=1: no effect with rollout.partial=true",
        ),
    ],
)
def test_describe_idle_names_the_setting_and_why(changes, line):
    assert describe_idle(load(changed(**changes))) == [line]


def test_describe_idle_is_silent_where_every_setting_acts():
    assert describe_idle(load(changed())) == []
    acting = {"lora__rank": 2, "lora__alpha": 32.0, "loss__kl_weight": 0.1, "loss__kl": "k2", **TEACHER}
    assert describe_idle(load(changed(**acting, distillation__weight=0.5))) == []


@pytest.mark.parametrize("name", config_files.names())
def test_describe_idle_finds_nothing_in_the_configs(name):
    config = load(config_files.config(name))
    assert describe_idle(config) + describe_idle_in_study(config) == []


RATES = {"compare__learning_rates": "1e-4, 3e-4", "compare__tuning_seeds": "100"}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (RATES, []),
        (
            RATES | {"compare__learning_rates": "1e-4,"},
            ["config.compare.tuning_seeds='100': no effect with compare.learning_rates='1e-4,', which is one rate"],
        ),
        ({"compare__sampled_tokens": 9}, []),
        (
            {"compare__sampled_tokens": 9, "compare__updates": 4},
            ["config.compare.sampled_tokens=9: no effect with compare.updates=4"],
        ),
        ({"lora__alpha": 32.0}, []),
    ],
)
def test_describe_idle_in_study_names_what_a_study_does_not_read(changes, lines):
    assert describe_idle_in_study(load(changed(**changes))) == lines
