"""`is_process_loss`: which errors mean that another process is lost."""

import jax
import pytest

from nft_jax.processes.ending import is_process_loss

GLOO = "UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:41656"


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (jax.errors.JaxRuntimeError(GLOO), True),
        (ValueError(GLOO), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect to the coordination service\nmore"), True),
        (caused(OSError("a checkpoint could not be written"), jax.errors.JaxRuntimeError(GLOO)), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory in gloo"), False),
        (ValueError("--distributed=barrier: use HOST:PORT"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_is_process_loss_tells_a_loss_from_other_errors(monkeypatch, error, is_one):
    assert not is_process_loss(error)
    monkeypatch.setattr("nft_jax.processes.ending.is_multiprocess", lambda: True)
    assert is_process_loss(error) == is_one
