"""What the parity tests compare with, where it is installed."""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Libraries of which only a file is read: how to install them.
PEERS = {"verl": "pip install --no-deps verl==0.9.1", "trl": "pip install --no-deps trl==1.16.0"}


def required(name: str) -> ModuleType:
    """The module; without it the test is skipped, or fails where NFT_JAX_REQUIRE_PARITY is set."""
    if importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    return give_up(f"{name} isn't installed: pip install -e .[parity]")


def give_up(message: str) -> Any:
    """Skips the test, or fails where NFT_JAX_REQUIRE_PARITY is set."""
    if os.environ.get("NFT_JAX_REQUIRE_PARITY"):
        pytest.fail(f"NFT_JAX_REQUIRE_PARITY is set, and {message}")
    pytest.skip(message)


@pytest.fixture(scope="session")
def peer_folder() -> Callable[[str], Path]:
    """`(name) -> folder` of a library of `PEERS`, which is not imported."""

    def find(name: str) -> Path:
        found = importlib.util.find_spec(name)
        return give_up(f"{name} isn't installed: {PEERS[name]}") if found is None else Path(found.origin).parent

    return find


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, which transformers' own models need."""
    return required("torch")


@pytest.fixture(scope="session")
def peft() -> ModuleType:
    """Hugging Face's package of adapters."""
    return required("peft")
