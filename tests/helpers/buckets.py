"""Local folders that stand for buckets and for machines."""

import importlib.util
from pathlib import Path

import pytest

from nft_jax.run import remote_workdir


def use_local_buckets(patch: pytest.MonkeyPatch, folder: Path) -> str:
    """Makes `folder/buckets/NAME` stand for the bucket NAME; returns what then stands for "gs://"."""
    scheme = f"{folder}/buckets/"
    patch.setattr(remote_workdir, "SCHEME", scheme)
    find = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda name: name if name == "gcsfs" else find(name))
    return scheme


def use_machine(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Goes on as a process on the machine whose cache, and thus mirrors, are in `folder`."""
    patch.setenv("NFT_JAX_CACHE", str(folder))
