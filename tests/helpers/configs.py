"""Configurations with any value put in, as a careless config file could, their faults, and nested values as flat."""

from typing import Any

import pytest
from ml_collections import ConfigDict

from nft_jax.config import default, load


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


def flat(values: dict, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    parts = (flat(v, f"{path}{k}.") if isinstance(v, dict) else {f"{path}{k}": v} for k, v in values.items())
    return {name: value for part in parts for name, value in part.items()}
