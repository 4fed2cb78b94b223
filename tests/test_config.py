"""Settings: every fault said in one message, with what was given, what is allowed and what to type instead."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from helpers.experiments import settings
from nft_jax.checks import CHOICES, POSITIVE
from nft_jax.config import Config, LossConfig, default, load, resolved, stored
from nft_jax.losses import LOSSES, NORMALIZERS, default_options

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def changed(**changes) -> ConfigDict:
    """The defaults with `section__name=value` put in as a careless config file could, unchecked."""
    values = default().to_dict()
    for path, value in changes.items():
        *sections, name = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[name] = value
    return ConfigDict(values, type_safe=False)


def faults(**changes) -> str:
    with pytest.raises(ValueError) as raised:
        load(changed(**changes))
    return str(raised.value)


def own_loss(logp_BT, batch, *, strength: float):
    """A loss whose option has no default."""
    return strength * logp_BT


def value_at(config: Config | ConfigDict, path: str):
    for name in path.split("."):
        config = getattr(config, name)
    return config


# The defaults, and the way there and back.


def test_the_defaults_load_to_themselves():
    expected = dataclasses.replace(Config(), loss=LossConfig(options=default_options("nft")))
    assert load(default()) == expected


def test_a_loaded_config_is_json_that_gives_it_back():
    config = load(settings(loss__name="dapo", loss__dapo__overlong_buffer=4, warm_start__optimizer__name="muon"))
    written = json.loads(json.dumps(resolved(config)))
    assert written["loss"]["options"]["overlong_buffer"] == 4
    assert written["warm_start"]["optimizer"]["name"] == "muon"
    assert written["old_logp"] == "sampler"  # resolved: no "auto" is left
    options = written["loss"].pop("options")
    again = ConfigDict(written | {"loss": written["loss"] | {"dapo": options, "own": {}}})
    assert load(again) == config


@pytest.mark.parametrize("strict", [False, True])
def test_old_log_probs_follow_from_strictness(strict):
    assert load(changed(strict_on_policy=strict)).old_logp == ("current" if strict else "sampler")


def test_the_sections_of_the_losses_are_their_options():
    config = default()
    for name in LOSSES:
        assert config.loss[name].to_dict() == default_options(name)
    config.loss.name = "grpo"
    config.loss.grpo.clip_high, config.loss.nft.epsilon = 0.4, 0.25
    assert load(config).loss.options == default_options("grpo") | {"clip_high": 0.4}
    config.loss.name = "nft"
    assert load(config).loss.options == default_options("nft") | {"epsilon": 0.25}


def test_a_loss_of_ones_own_takes_any_option_it_has():
    config = default()
    config.loss.name = f"{__name__}:own_loss"
    config.loss.own.strength = 0.5
    assert load(config).loss.options == {"strength": 0.5}
    config.loss.own.strengh = 0.5
    with pytest.raises(ValueError, match="unknown option 'strengh'.*known are strength; did you mean 'strength'"):
        load(config)
    del config.loss.own["strengh"], config.loss.own["strength"]
    with pytest.raises(ValueError, match="needs a value for strength"):
        load(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_says_what_it_is(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = load(module.get_config())
    json.dumps(resolved(config))
    assert all(f"\n{heading} " in module.__doc__ for heading in ("Claim", "Cost", "Command"))
    assert f"--config={path.stem} " in module.__doc__


# Unknown names.


@pytest.mark.parametrize(
    ("path", "given", "near"),
    [
        ("", "answer_per_prompt", "answers_per_prompt"),
        ("optimizer", "learning_rat", "learning_rate"),
        ("loss.nft", "epsilom", "epsilon"),
        ("selection", "max_round", "max_rounds"),
    ],
)
def test_a_mistyped_setting_names_the_nearest(path, given, near):
    config = default()
    section = value_at(config, path) if path else config
    with pytest.raises(AttributeError, match=f'Did you mean "{near}"'):
        setattr(section, given, 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("answer_per_prompt", "config.answer_per_prompt: no such setting; did you mean 'answers_per_prompt'?"),
        ("model__hed_size", "config.model.hed_size: no such setting; did you mean 'head_size'?"),
        (
            "warm_start__optimizer__shedule",
            "config.warm_start.optimizer.shedule: no such setting; did you mean 'schedule'?",
        ),
        ("zzzz", "config.zzzz: no such setting"),
    ],
)
def test_an_unknown_setting_is_refused_on_loading(path, message):
    assert faults(**{path: 1}) == message


@pytest.mark.parametrize("name", ["steps", "loss"])
def test_a_missing_setting_is_refused_on_loading(name):
    values = default().to_dict()
    del values[name]
    with pytest.raises(ValueError, match=name):
        load(ConfigDict(values))


# Wrong kinds.


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("steps", "3", "config.steps='3': expected int, got str"),
        ("steps", 3.0, "config.steps=3.0: expected int, got float"),
        ("steps", True, "config.steps=True: expected int, got bool"),
        ("steps", None, "config.steps=None: expected int, got NoneType"),
        ("optimizer__learning_rate", "fast", "config.optimizer.learning_rate='fast': expected float, got str"),
        ("optimizer__learning_rate", True, "config.optimizer.learning_rate=True: expected float, got bool"),
        ("strict_on_policy", 1, "config.strict_on_policy=1: expected bool, got int"),
        ("loss__normalizer", 7, "config.loss.normalizer=7: expected str, got int"),
    ],
)
def test_a_value_of_the_wrong_kind(path, value, message):
    assert faults(**{path: value}) == message


def test_a_whole_number_may_stand_for_a_float():
    config = load(changed(optimizer__learning_rate=1, rollout__temperature=2, warm_start__optimizer__clip_norm=3))
    values = config.optimizer.learning_rate, config.rollout.temperature, config.warm_start.optimizer.clip_norm
    assert values == (1.0, 2.0, 3.0)
    assert all(isinstance(value, float) for value in values)


# Values that can't run.

TYPOS = {
    "packing.share_prompts": ("yess", "yes"),
    "model.dtype": ("flot32", "float32"),
    "model.precision": ("heighest", "highest"),
    "model.remat": ("ful", "full"),
    "model.attention": ("splsh", "splash"),
    "data.long_prompts": ("refused", "refuse"),
    "rollout.lockstep": ("yess", "yes"),
    "selection.ahead": ("finsh", "finish"),
    "verify.isolation": ("require", "required"),
    "optimizer.name": ("adam", "adamw"),
    "optimizer.schedule": ("cosin", "cosine"),
    "warm_start.optimizer.name": ("moun", "muon"),
    "warm_start.optimizer.schedule": ("liner", "linear"),
    "old_logp": ("recomputed", "recompute"),
    "record.best_by": ("greddy", "greedy"),
}


@pytest.mark.parametrize("path", CHOICES)
def test_a_mistyped_choice_lists_what_there_is(path):
    given, near = TYPOS[path]
    message = faults(**{path.replace(".", "__"): given})
    allowed = ", ".join(CHOICES[path])
    assert f"config.{path}={given!r}: use one of {allowed}; did you mean {near!r}?" in message


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("path", POSITIVE)
def test_a_size_must_be_positive(path, value):
    given = float(value) if isinstance(value_at(Config(), path), float) else value
    assert f"config.{path}={given}: must be positive" in faults(**{path.replace(".", "__"): given})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation__top_p": 1.5}, ["config.evaluation.top_p=1.5: a share of the mass"]),
        ({"evaluation__pass_at": "1,5"}, ["pass_at='1,5': 4 sampled answers tell pass@k for k from 1 to 4"]),
        ({"evaluation__pass_at": "0"}, ["pass_at='0': 4 sampled"]),
        ({"evaluation__pass_at": "2, two"}, ["pass_at='2, two': 4 sampled"]),
        ({"rollout__top_p": 0.9}, ["config.rollout.top_p=0.9, top_k=0", "use top_p=1.0, top_k=0"]),
        ({"rollout__top_k": 40}, ["config.rollout.top_p=1.0, top_k=40", "biases the ratio"]),
        (
            {"selection__rate_above": 0.5, "selection__rate_below": 0.5},
            ["low=0.5, high=0.5: need 0 <= low < high <= 1"],
        ),
        ({"selection__rate_above": -0.1}, ["low=-0.1, high=1.0: need 0 <= low < high <= 1"]),
        ({"selection__rate_below": 1.1}, ["low=0.0, high=1.1", "low=0 high=1 keeps every group"]),
        ({"selection__rate_above": float("nan")}, ["low=nan"]),
        ({"selection__candidates_per_round": -8}, ["config.selection.candidates_per_round=-8: must be 0 or more"]),
        ({"warm_start__incorrect_share": 1.5}, ["config.warm_start.incorrect_share=1.5: a share, between 0 and 1"]),
        (
            {"selection__carry": True, "old_logp": "recompute"},
            ["carry=true with config.old_logp='recompute'", "use old_logp='sampler'"],
        ),
        (
            {"prompts_per_step": 64, "updates_per_step": 3},
            ["updates_per_step=3 does not divide config.prompts_per_step=64", "[1, 2, 4, 8, 16, 32, 64]"],
        ),
        ({"model__heads": 6, "model__kv_heads": 4}, ["config.model.kv_heads=4 does not divide config.model.heads=6"]),
        ({"model__head_size": 7}, ["config.model.head_size=7", "even"]),
        ({"loss__name": "ntf"}, ["config.loss: unknown loss 'ntf': known are", "did you mean 'nft'?"]),
        ({"loss__name": "no_such_module:f"}, ["config.loss:", "no_such_module", "can't be imported"]),
        ({"loss__nft__omega": "sqrt_od"}, ["config.loss:", "sqrt_odds"]),
        ({"loss__nft__epsilon": "large"}, ["config.loss:", "'epsilon' of loss 'nft' is of type float, not str"]),
        ({"loss__nft__epsilom": 1.0}, ["unknown option 'epsilom' of loss 'nft'", "did you mean 'epsilon'?"]),
        (
            {"loss__normalizer": "tokenmean"},
            ["config.loss.normalizer='tokenmean': use one of", *NORMALIZERS, "did you mean 'token_mean'?"],
        ),
        ({"loss__normalizer": "pair_mean"}, ["'pair_mean' does not fit loss 'nft', whose unit is the answer"]),
        (
            {"loss__name": "dpo", "loss__normalizer": "token_mean"},
            ["'token_mean' does not fit loss 'dpo', whose unit is the pair"],
        ),
        ({"loss__kl_weight": -0.1}, ["config.loss.kl_weight=-0.1: must be 0 or more"]),
        ({"loss__name": "dapo", "loss__dapo__overlong_buffer": 65}, ["config.loss.dapo:", "65", "64"]),
        ({"packing__row_tokens": 63}, ["config.packing.row_tokens=63: one answer of loss 'nft'", "at least 64, or 0"]),
        (
            {"packing__row_tokens": 126, "packing__share_prompts": "no"},
            [
                "row_tokens=126: one answer",
                "127 = (max_prompt_tokens + max_answer_tokens − 1) tokens",
                "at least 127, or 0",
            ],
        ),
        (
            {"loss__name": "dpo", "packing__row_tokens": 127},
            [
                "config.packing.row_tokens=127: one pair of loss 'dpo'",
                "128 = 2 × max_answer_tokens tokens",
                "at least 128, or 0",
            ],
        ),
        (
            {"strict_on_policy": True, "updates_per_step": 2},
            ["config.strict_on_policy=true needs config.updates_per_step=1, got 2"],
        ),
        (
            {"strict_on_policy": True, "rollout__temperature": 0.7},
            ["config.strict_on_policy=true needs config.rollout.temperature=1.0, got 0.7"],
        ),
        (
            {"strict_on_policy": True, "selection__carry": True},
            ["config.strict_on_policy=true needs config.selection.carry=False, got True"],
        ),
        (
            {"strict_on_policy": True, "old_logp": "sampler"},
            ["config.strict_on_policy=true needs config.old_logp=current, got sampler"],
        ),
    ],
)
def test_what_can_not_run_is_said_with_what_can(changes, words):
    message = faults(**changes)
    assert message.startswith("the configuration can't run:\n  config.")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "changes",
    [
        {"packing__row_tokens": 64},
        {"packing__row_tokens": 127, "packing__share_prompts": "no"},
        {"loss__name": "dpo", "packing__row_tokens": 128},
        {"loss__name": "dpo", "packing__row_tokens": 254, "packing__share_prompts": "no"},
        {"loss__name": "dapo", "loss__dapo__overlong_buffer": 64},
        {"selection__rate_above": 0.0, "selection__rate_below": 0.01},
        {"selection__carry": True, "selection__candidates_per_round": 128},
        {"warm_start__incorrect_share": 1.0},
        {"strict_on_policy": True, "loss__kl_weight": 0.1},
    ],
)
def test_what_lies_just_inside_the_limits_runs(changes):
    load(changed(**changes))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("warm_start__optimizer__learning_rate", 0.0),
        ("warm_start__optimizer__epsilon", 0.0),
        ("warm_start__steps", -1),
        ("optimizer__clip_norm", 0.0),
        ("optimizer__clip_norm", -1.0),
        ("optimizer__warmup_updates", -1),
        ("optimizer__beta2", 1.0),
        ("loss__constant_tokens", -1),
        ("loss__kl_weight", float("nan")),
    ],
)
def test_what_would_train_on_nothing_or_backwards_is_refused(path, value):
    assert f"config.{path.replace('__', '.')}" in faults(**{path: value})


def test_several_faults_are_named_at_once():
    message = faults(
        steps=0, model__dtype="float31", rollout__top_k=5, updates_per_step=3, loss__normalizer="sum", verify__workers=0
    )
    named = [line.strip().split("=")[0] for line in message.splitlines()[1:]]
    assert sorted(named) == [
        "config.loss.normalizer",
        "config.model.dtype",
        "config.rollout.top_p",
        "config.steps",
        "config.updates_per_step",
        "config.verify.workers",
    ]


# What a run stored.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss__name": "grpo", "seed": 3, "mesh__data": 2},
        {"loss__nft__omega": "sqrt_odds", "strict_on_policy": True},
        {"loss__name": f"{__name__}:own_loss", "loss__own__strength": 0.5},
    ],
)
def test_a_stored_config_is_the_config(tmp_path, changes):
    config = load(settings(**changes))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(resolved(config)))
    assert load(stored(str(path))) == config


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"loss": {"name": "nft", "options": {}}, "sed": 3}'])
def test_a_file_that_no_run_stored_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="config.json is no configuration that this version wrote"):
        stored(str(path))
