"""Any value of any setting is taken as it is, or refused with the setting, the value and what is allowed."""

import math
from random import Random
from typing import Any

import pytest

from helpers.configs import changed
from nft_jax.config import Config, Setting, load, settings_of, value_of
from nft_jax.names import quote

SEED = 18
SETTINGS = [setting for setting in settings_of(Config) if setting.name != "loss.options"]
NASTY: dict[type, list] = {
    float: [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e300, -1e300, 1e39, 1e-50, 5e-324, 10**400, -1],
    int: [0, -1, -2, 2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), 10**5000],
    bool: [0, 1, "true"],
    str: [0, 1.5, ["x"]],
}
OTHER_TYPES = [None, "3", True, [], {"x": 1}, (1, 2), b"x", 3.0, 3, "x" * 9999]


def draw(random: Random, setting: Setting) -> Any:
    """A value for a setting: of another type, not a number, on a bound, beside a bound, or anywhere."""
    kind = random.choice(("nasty", "bound", "type"))
    if kind == "type" or (kind == "bound" and setting.type in (bool, str)):
        return random.choice([*setting.limits.choices, *OTHER_TYPES])
    if kind == "nasty":
        return random.choice(NASTY[setting.type])
    limits = setting.range
    bound = random.choice([b for b in (limits.at_least, limits.above, limits.at_most, limits.below) if b is not None])
    if setting.type is int:
        return bound + random.choice((-1, 0, 1))
    return random.choice([float(bound), math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf), bound / 3])


def must_be_refused(setting: Setting, value: Any) -> bool:
    """What no program computes with, by rules that are not those of the package."""
    if setting.type is str:
        return not isinstance(value, str) or bool(setting.limits.choices and value not in setting.limits.choices)
    if setting.type is bool:
        return not isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float) if setting.type is float else int):
        return True
    if setting.type is int:
        return not -(2**31) <= value < (2**32 if setting.name == "seed" else 2**31)
    return not (abs(value) < 3.41e38) or 0 < abs(value) < 1e-45


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_load_takes_no_value_in_silence(count, capsys):
    random, refused = Random(SEED), 0
    for number in range(count):
        setting = SETTINGS[number % len(SETTINGS)] if number < len(SETTINGS) else random.choice(SETTINGS)
        value = draw(random, setting)
        where = f"seed {SEED}, value {number}: {setting.name}={quote(value)}"
        try:
            found = value_of(load(changed(**{setting.name.replace(".", "__"): value})), setting.name)
        except ValueError as error:
            message = str(error)
            refused += 1
            assert len(message) < 3000, where
            if must_be_refused(setting, value):
                assert f"config.{setting.name}=" in message, where
                assert any(text in message for text in (str(setting.range), setting.allowed)), (where, message)
                assert any(text in message for text in (quote(value), quote(float_of(value)))), (where, message)
        else:
            assert not must_be_refused(setting, value), where
            assert setting.range.allow(found), where
            assert found == ("sampler" if value == "auto" and setting.name == "old_logp" else value), where
    with capsys.disabled():
        print(f"\n{count} values of settings (seed {SEED}): {refused} refused, {count - refused} taken as they are")
    assert count // 3 < refused < count


def float_of(value: Any) -> Any:
    """The value as a float setting holds it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return value
