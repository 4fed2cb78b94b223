"""Limits of settings, and the walk over the settings of a dataclass."""

import dataclasses

import pytest

from nft_jax.config.setting import Limits, Phase, Setting, replace_value, section, setting, settings_of, value_of


@dataclasses.dataclass(frozen=True)
class Inner:
    """A section."""

    size: int = setting(3, "a size", at_least=1)
    speed: float = setting(1.0, "a speed", decides=Phase.NONE)
    both: bool = setting(True, "decides a warm start alone", decides=Phase.WARM_START)


@dataclasses.dataclass(frozen=True)
class Outer:
    """Two sections and a setting."""

    seed: int = setting(0, "a seed")
    options: dict = setting(dict, "options")
    run: Inner = section(Inner, Phase.RUN)
    warm: Inner = section(Inner, Phase.WARM_START)


@pytest.mark.parametrize(
    ("limits", "text", "inside", "outside"),
    [
        ({}, "", [-1, "x", float("nan")], []),
        ({"choices": ("a", "b")}, "one of a, b", ["a"], ["c", ""]),
        ({"at_least": 1}, "1 or more", [1, 9], [0, float("nan")]),
        ({"above": 0, "at_most": 1}, "above 0 and 1 or less", [1e-9, 1], [0, 1.1, float("nan")]),
        ({"at_least": 0, "below": 1}, "0 or more and below 1", [0, 0.99], [-1e-9, 1]),
    ],
)
def test_limits_allow_what_they_say(limits, text, inside, outside):
    limits = Limits(**limits)
    assert str(limits) == text
    assert all(limits.allow(value) for value in inside)
    assert not any(limits.allow(value) for value in outside)


def test_settings_of_walks_sections_with_what_they_decide():
    found = {each.name: each for each in settings_of(Outer)}
    assert found["seed"] == Setting("seed", int, 0, "a seed", Limits(), Phase.ALL)
    assert found["options"].default == {}
    assert found["run.size"] == Setting("run.size", int, 3, "a size", Limits(at_least=1), Phase.RUN)
    assert {name: each.decides for name, each in found.items() if "." in name} == {
        "run.size": Phase.RUN,
        "run.speed": Phase.NONE,
        "run.both": Phase.NONE,
        "warm.size": Phase.WARM_START,
        "warm.speed": Phase.NONE,
        "warm.both": Phase.WARM_START,
    }


def test_value_of_reads_settings_and_sections():
    assert value_of(Outer(), "run.size") == 3
    assert value_of(Outer(), "warm") == Inner()


def test_replace_value_changes_one_value_of_a_copy():
    assert replace_value(Outer(), "seed", 3) == Outer(seed=3)
    assert replace_value(Outer(), "run.size", 4) == Outer(run=Inner(size=4))


def test_setting_fault_names_value_and_limits():
    size, *_ = settings_of(Inner)
    assert size.fault(3) is None
    assert size.fault(0) == "config.size=0: must be 1 or more and 2147483647 or less"


SPEED = Setting("speed", float, 1.0, "a speed", Limits(above=0, below=1), Phase.NONE)


@pytest.mark.parametrize("value", [0.5, 1.2e-38, 0.999])
def test_setting_fault_is_none_for_what_float32_keeps_inside(value):
    assert SPEED.fault(value) is None


@pytest.mark.parametrize(
    ("value", "rounded"), [(1e-50, "1e-50 is 0"), (1e-39, "1e-39 is 0"), (5e-324, "is 0"), (0.99999999, "1 is 1")]
)
def test_setting_fault_names_what_float32_moves_to_a_bound(value, rounded):
    message = SPEED.fault(value)
    assert message.startswith(f"config.speed={value}: must be above 0 and below 1 (")
    assert f"{rounded} in float32)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.5e38, 1e308, -1e308])
def test_setting_fault_refuses_what_no_float32_is(value):
    free = Setting("speed", float, 1.0, "a speed", Limits(), Phase.NONE)
    assert free.fault(value) == f"config.speed={value}: must be -3.40282e+38 or more and 3.40282e+38 or less"


@pytest.mark.parametrize("value", [2**31, 2**64, 10**30, -(10**30), 10**999])
def test_setting_fault_refuses_what_no_int32_is(value):
    size, *_ = settings_of(Inner)
    message = size.fault(value)
    assert message.startswith("config.size=") and "must be 1 or more and 2147483647 or less" in message
    assert len(message) < 200


@pytest.mark.parametrize("value", ["a\0b", "\0", "\ud800", "path/\udcff.jsonl"])
def test_setting_fault_refuses_text_that_no_file_can_hold(value):
    text = Setting("text", str, "", "a text", Limits(), Phase.NONE)
    assert text.fault(value).endswith(": must be text in UTF-8, without NUL")
    assert text.fault(value).isascii()
    assert text.fault("a" + "".join(each for each in value if each.isprintable())) is None
