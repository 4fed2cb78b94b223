"""Config files: the defaults, unknown names, values of another type, and the way to `Config` and back."""

import dataclasses
import importlib.util
import json
import math
import re
from pathlib import Path
from random import Random

import pytest
from ml_collections import ConfigDict

from helpers.configs import changed, faults
from helpers.experiments import settings
from nft_jax.config import Config, LossConfig, default, load, read_saved_config, to_dict, value_of
from nft_jax.losses import LOSSES, default_options

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def own_loss(logp_BT, batch, *, strength: float):
    """A loss whose option has no default."""
    return strength * logp_BT


# `default`, `load` and `resolved`.


def test_load_of_default_gives_the_defaults():
    expected = Config(old_logp="sampler", loss=LossConfig(options=default_options("nft")))
    assert load(default()) == expected
    assert dataclasses.replace(load(default())) == expected


def test_config_is_never_without_a_source_of_old_logp():
    with pytest.raises(ValueError, match="old_logp='auto' is for config files"):
        Config()


def test_config_checks_what_replace_gives():
    with pytest.raises(ValueError, match="config.steps=0: must be 1 or more"):
        dataclasses.replace(load(default()), steps=0)


def test_resolved_is_json_that_load_reads_back():
    config = load(settings(loss__name="dapo", loss__dapo__overlong_buffer=4, warm_start__optimizer__name="muon"))
    written = json.loads(json.dumps(to_dict(config)))
    assert written["loss"]["options"]["overlong_buffer"] == 4
    assert written["warm_start"]["optimizer"]["name"] == "muon"
    assert written["old_logp"] == "sampler"  # resolved: no "auto" is left
    options = written["loss"].pop("options")
    again = ConfigDict(written | {"loss": written["loss"] | {"dapo": options, "own": {}}})
    assert load(again) == config


@pytest.mark.parametrize("strict", [False, True])
def test_load_fills_in_old_logp(strict):
    assert load(changed(strict_on_policy=strict)).old_logp == ("current" if strict else "sampler")


def test_default_has_a_section_for_the_options_of_each_loss():
    config = default()
    for name in LOSSES:
        assert config.loss[name].to_dict() == default_options(name)
    config.loss.name = "grpo"
    config.loss.grpo.clip_high, config.loss.nft.epsilon = 0.4, 0.25
    assert load(config).loss.options == default_options("grpo") | {"clip_high": 0.4}
    config.loss.name = "nft"
    assert load(config).loss.options == default_options("nft") | {"epsilon": 0.25}


def test_load_takes_any_option_of_an_external_loss():
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
def test_load_of_every_shipped_config(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = load(module.get_config())
    json.dumps(to_dict(config))
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
def test_editable_config_names_the_setting_nearest_to_an_unknown_one(path, given, near):
    config = default()
    section = value_of(config, path) if path else config
    words = re.escape(f"the configuration has no setting {given!r}; did you mean {near!r}?")
    with pytest.raises(AttributeError, match=words):
        setattr(section, given, 3)
    with pytest.raises(AttributeError, match=words):
        getattr(section, given)
    with pytest.raises(KeyError, match=f"did you mean {near!r}"):
        section[given] = 3


def test_editable_config_takes_a_whole_section():
    config = default()
    config.optimizer = ConfigDict(config.optimizer.to_dict() | {"name": "muon"})
    assert load(config).optimizer.name == "muon"


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
def test_load_refuses_an_unknown_setting(path, message):
    assert faults(**{path: 1}) == message


@pytest.mark.parametrize("name", ["steps", "loss"])
def test_load_refuses_a_missing_setting(name):
    values = default().to_dict()
    del values[name]
    with pytest.raises(ValueError, match=name):
        load(ConfigDict(values))


# Values of another type.

STEPS, RATE = "a whole number, 1 or more and 2147483647 or less", "a number, above 0 and 10 or less"
NORM = "a number, above 0 and 3.40282e+38 or less"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("steps", "3", "config.steps='3': expected int, got str; use {STEPS}"),
        ("steps", 3.0, "config.steps=3.0: expected int, got float; use {STEPS}"),
        ("steps", True, "config.steps=True: expected int, got bool; use {STEPS}"),
        ("steps", None, "config.steps=None: expected int, got NoneType; use {STEPS}"),
        ("optimizer__clip_norm", "big", "config.optimizer.clip_norm='big': expected float, got str; use {NORM}"),
        ("optimizer__learning_rate", True, "config.optimizer.learning_rate=True: expected float, got bool; use {RATE}"),
        ("strict_on_policy", 1, "config.strict_on_policy=1: expected bool, got int; use true or false"),
        ("loss__normalizer", 7, "config.loss.normalizer=7: expected str, got int; use text"),
    ],
)
def test_load_refuses_a_value_of_another_type(path, value, message):
    assert faults(**{path: value}) == message.format(STEPS=STEPS, RATE=RATE, NORM=NORM)


def test_load_takes_a_whole_number_for_a_float():
    config = load(changed(optimizer__learning_rate=1, rollout__temperature=2, warm_start__optimizer__clip_norm=3))
    values = config.optimizer.learning_rate, config.rollout.temperature, config.warm_start.optimizer.clip_norm
    assert values == (1.0, 2.0, 3.0)
    assert all(isinstance(value, float) for value in values)


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
def test_stored_reads_what_resolved_wrote(tmp_path, changes):
    config = load(settings(**changes))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert load(read_saved_config(str(path))) == config


WRITTEN = json.dumps(to_dict(load(default())), indent=2)


def refusal(path: Path, content: bytes) -> str | None:
    """The message for such a `config.json`; None if it is read, and its values accepted."""
    path.write_bytes(content)
    try:
        load(read_saved_config(str(path)))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
        (WRITTEN[: len(WRITTEN) // 2], "is no JSON: "),
        ("[]", "holds a JSON list, not an object {…}"),
        ("[" * 100_000, "is no JSON: it is nested too deeply"),
        ('{"seed": ' + "[" * 100_000, "is no JSON: it is nested too deeply"),
        ("\xff\xfe", "is no JSON: 'utf-8' codec can't decode"),
        ("{}", "that this version wrote: loss.name is missing (and 1 more)"),
        ('{"loss": {"name": "nft", "options": {}}, "sed": 3}', "that this version wrote: 'sed' is no setting; did you"),
        (WRITTEN.replace('"steps": 100', '"steps": "100"', 1), "steps is '100'; it must be a whole number, 1 or more"),
        (WRITTEN.replace('"seed": 0', f'"seed": {[9] * 9000}'), "seed is [9, 9, 9"),
        (WRITTEN.replace('"steps": 100', '"steps": null', 1), "steps is None; it must be a whole number"),
        ('{"loss": {"name": "nft", "options": []}}', "loss.options is []; it must be options by name"),
        ('{"loss": 3, "model": []}', "loss is 3, not an object {…} (and 1 more)"),
        (WRITTEN.replace('"epsilon": 1.0', '"epsilom": 1.0'), "the options of loss 'nft' are none of this version"),
        (WRITTEN.replace('"omega": "one_minus_rate"', '"omega": []'), "the options of loss 'nft' are none of this ver"),
    ],
    ids=range(15),
)
def test_stored_refuses_a_file_that_no_run_wrote_in_one_line(tmp_path, content, words):
    content = content.encode("latin-1" if "\xff" in content else "utf-8")
    message = refusal(tmp_path / "config.json", content)
    assert message is not None and words in message
    assert message.startswith(f"{tmp_path}/config.json")
    assert "\n" not in message and len(message) < 500


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_stored_takes_no_damaged_file_in_silence(tmp_path, count):
    """A value of another kind in any place of a `config.json`, or the file cut anywhere: a short message, or none."""
    seed = 18
    random, refused = Random(seed), 0
    for _ in range(count):
        values = json.loads(WRITTEN)
        place = values
        while True:
            name = random.choice(sorted(place))
            if not (isinstance(place[name], dict) and place[name]) or random.random() < 0.2:
                break
            place = place[name]
        before = place[name]
        place[name] = random.choice([None, [], {}, {"x": 1}, "x", "x" * 9999, True, -7, 10**30, math.nan, [[]] * 999])
        content = json.dumps(values)
        if random.random() < 0.2:
            content = content[: random.randrange(len(content))]
        message = refusal(tmp_path / "config.json", content.encode())
        refused += message is not None
        if message is None:
            kinds = (int, float) if isinstance(before, float) else type(before)
            assert isinstance(place[name], kinds), f"seed {seed}: {name}={place[name]!r}"[:300]
        else:
            assert len(message) < 2000, f"seed {seed}"
    assert refused > count // 2, f"seed {seed}"
