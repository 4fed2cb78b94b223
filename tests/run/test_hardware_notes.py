"""Notes of what has run on which kind of device, and the default that depends on them."""

import types

import numpy as np
import pytest

from nft_jax.parallel.mesh import TENSOR
from nft_jax.run import hardware_notes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))
    return tmp_path


def mesh(platform="tpu", kind="TPU v5 lite", tensor=4):
    """Of a mesh, what the choice looks at."""
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    return types.SimpleNamespace(devices=np.array([device]), shape={TENSOR: tensor})


def test_write_note_keeps_notes_by_kind():
    assert hardware_notes.read_note("TPU v5 lite", "a") is None
    path = hardware_notes.write_note("TPU v5 lite", "a", {"tensor": 4})
    hardware_notes.write_note("TPU v5 lite", "b", {"tensor": 1})
    hardware_notes.write_note("TPU v4", "a", {"tensor": 2})
    assert hardware_notes.read_note("TPU v5 lite", "a") == {"tensor": 4}
    assert hardware_notes.read_note("TPU v5 lite", "b") == {"tensor": 1}
    assert hardware_notes.read_note("TPU v4", "a") == {"tensor": 2}
    assert path.name == "tpu_v5_lite.json"
    assert sorted(found.name for found in path.parent.iterdir()) == ["tpu_v4.json", "tpu_v5_lite.json"]


def test_uses_lockstep_on_tpus_until_loops_have_diverged_on_their_kind():
    assert hardware_notes.uses_lockstep(mesh())
    assert not hardware_notes.uses_lockstep(mesh("cpu", "cpu"))
    hardware_notes.write_note("TPU v5 lite", hardware_notes.DIVERGING, {"tensor": 4})
    assert not hardware_notes.uses_lockstep(mesh())
    assert hardware_notes.uses_lockstep(mesh(kind="TPU v4"))


def test_uses_lockstep_until_loops_with_collectives_have_diverged():
    hardware_notes.write_note("TPU v5 lite", hardware_notes.DIVERGING, {"tensor": 1})
    assert hardware_notes.uses_lockstep(mesh(tensor=2))
    assert not hardware_notes.uses_lockstep(mesh(tensor=1))


def test_uses_lockstep_if_one_host_lacks_the_note(monkeypatch):
    hardware_notes.write_note("TPU v5 lite", hardware_notes.DIVERGING, {"tensor": 4})
    for others, keeps in (([False, False], False), ([False, True], True)):
        monkeypatch.setattr(hardware_notes.distributed, "any_process", lambda mine, others=others: any([mine, *others]))
        assert hardware_notes.uses_lockstep(mesh()) == keeps


def test_read_note_names_a_damaged_file_and_counts_it_as_no_note(capsys):
    path = hardware_notes.write_note("TPU v5 lite", hardware_notes.DIVERGING, {"tensor": 4})
    path.write_text("{")
    assert hardware_notes.uses_lockstep(mesh())
    assert str(path) in capsys.readouterr().err
