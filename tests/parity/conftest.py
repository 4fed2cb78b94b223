"""What the parity tests compare with, where it is installed."""

import importlib
import importlib.util
import os
from types import ModuleType

import pytest


def required(name: str) -> ModuleType:
    """The module; without it the test is skipped, or fails where NFT_JAX_REQUIRE_PARITY is set."""
    if importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    message = f"{name} isn't installed: pip install -e .[parity]"
    if os.environ.get("NFT_JAX_REQUIRE_PARITY"):
        pytest.fail(f"NFT_JAX_REQUIRE_PARITY is set, and {message}")
    pytest.skip(message)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, which transformers' own models need."""
    return required("torch")


@pytest.fixture(scope="session")
def peft() -> ModuleType:
    """Hugging Face's package of adapters."""
    return required("peft")
