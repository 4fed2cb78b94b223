"""The kinds of values in a config.json: whatever a field holds, the file is read or refused by the field's name."""

import math

import pytest

from helpers.model_folders import SETTINGS
from nft_jax.models.hf.kinds import SIZES, is_positive, kind_faults
from nft_jax.models.hf.settings import parse_settings

HOSTILE = [math.nan, math.inf, -1, 10**30, True, "64", [], {}, [[1]], 1.5, {"a": 1}, {"rope_type": [1]}]
SWITCHES = ["tie_word_embeddings", "use_sliding_window"]


@pytest.mark.parametrize("name", sorted({*SETTINGS, *SIZES, "rope_parameters", "rope_scaling", "layer_types"}))
@pytest.mark.parametrize("model_type", ["qwen2", "llama", "mistral"])
def test_parse_settings_reads_any_value_or_refuses_the_file(tmp_path, name, model_type):
    for value in HOSTILE:
        values = {key: value for key, value in SETTINGS.items() if "window" not in key} | {"model_type": model_type}
        try:
            parse_settings(values | {name: value}, tmp_path / "config.json")
        except ValueError as error:
            assert str(tmp_path) in str(error)


@pytest.mark.parametrize("name", SIZES)
def test_kind_faults_refuses_a_size_that_is_none(name):
    for value in [*HOSTILE, 2**40]:
        (fault,) = kind_faults(SETTINGS | {name: value}, SWITCHES)
        assert fault.startswith(f"{name}: {value!r} is not a whole number above 0, and at most ")


@pytest.mark.parametrize("name", SWITCHES)
def test_kind_faults_refuses_a_switch_that_is_none(name):
    assert kind_faults(SETTINGS | {name: None}, SWITCHES) == []
    for value in ["false", 0, 1, [], math.nan]:
        assert kind_faults(SETTINGS | {name: value}, SWITCHES) == [f"{name}: {value!r} is neither true nor false"]


def test_is_positive():
    assert all(map(is_positive, [1, 0.5, 1e-6, 10**6]))
    assert not any(map(is_positive, [math.nan, math.inf, 0, -1, True, "1", None, [1]]))
