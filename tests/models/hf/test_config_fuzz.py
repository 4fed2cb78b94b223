"""Any config.json of a model is read, or refused with a short message."""

import json
import math
from random import Random

import pytest

from helpers.model_folders import CONFIG, SETTINGS, random_tensors, write_model
from nft_jax.models import hf

SEED = 18
VALUES = [
    *(None, True, "x", "x" * 9999, [], {}, [1, [2]], {"a": {"b": 1}}, [[]] * 999, 0, -1, 1, 1.5, 2**31, 2**64, 10**30),
    *(math.nan, math.inf, -math.inf, 1e300, 1e-300, 10**400, {"rope_type": "yarn", "factor": 1e308}),
]
FIELDS = [
    *SETTINGS,
    *("head_dim", "layer_types", "max_position_embeddings", "rope_scaling", "rope_parameters", "torch_dtype"),
    *("quantization_config", "eos_token_id", "attention_bias", "unknown"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), random_tensors())


def read(folder):
    """All that is read of a config.json."""
    hf.read_model_settings(folder)
    hf.read_token_limit(folder)
    hf.read_dtype(folder)
    return hf.resolve_model(CONFIG, folder)


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_config_json_with_any_values_is_read_or_refused(folder, count):
    random, path, taken = Random(SEED), folder / "config.json", 0
    for number in range(count):
        values = dict(SETTINGS) | {
            random.choice(FIELDS): random.choice(VALUES) for _ in range(random.choice((1, 1, 2)))
        }
        if random.random() < 0.2:
            del values[random.choice(list(values))]
        content = json.dumps(values)
        if random.random() < 0.1:
            content = content[: random.randrange(len(content))]
        path.write_text(content)
        try:
            model = read(folder)
        except ValueError as error:
            lines = str(error).splitlines()
            assert all(len(line) < 600 for line in lines), f"seed {SEED}, file {number}: {lines}"
            assert str(path.parent) in lines[0]
        else:
            taken += 1
            numbers = [value for value in vars(model).values() if isinstance(value, float)]
            assert all(0 <= value < math.inf for value in numbers), f"seed {SEED}, file {number}: {content[:300]}"
            assert model.rope_theta > 0 and model.norm_epsilon > 0
    assert 0 < taken < count // 2, f"seed {SEED}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a": ' * 100_000, "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (json.dumps(SETTINGS).encode()[:-9], "is no JSON"),
    ],
)
def test_config_json_that_is_broken_is_refused_in_one_line(folder, content, words):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError) as raised:
        read(folder)
    message = str(raised.value)
    assert words in message and str(folder) in message
    assert "\n" not in message and len(message) < 600
