"""The first cell of the notebooks: what it clones and installs, and the devices that it prints."""

import importlib.util
import re
import subprocess
from types import SimpleNamespace

import pytest

from helpers.documents import FOLDER, NOTEBOOKS, cells

SPEC = importlib.util.spec_from_file_location("runtime", FOLDER / "runtime.py")


@pytest.fixture
def runtime():
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    return module


@pytest.fixture
def calls(monkeypatch):
    """Commands that would have been run; `calls.fails` of them, from the first, end with code 1."""
    noted = SimpleNamespace(commands=[], fails=0)

    def run(command, **_):
        noted.commands.append([str(word) for word in command])
        return SimpleNamespace(returncode=int(len(noted.commands) <= noted.fails))

    monkeypatch.setattr(subprocess, "run", run)
    return noted


@pytest.fixture
def installed(runtime, tmp_path, monkeypatch):
    """What is installed, by name; the constraints are written to a folder of the test's."""
    versions: dict[str, str] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        runtime, "distributions", lambda: [SimpleNamespace(name=name, version=v) for name, v in versions.items()]
    )
    return versions


def first_cell(repository=""):
    """Runs the first cell but for its magic and its last line, which goes to the root; returns its names."""
    code = re.sub(r"^(%run|os\.chdir).*$", "", cells(NOTEBOOKS[0])[0].source, flags=re.MULTILINE)
    names: dict = {}
    exec(code.replace('REPOSITORY, TAG = ""', f"REPOSITORY, TAG = {repository!r}"), names)
    return names


def test_first_cell_clones_nothing_in_a_checkout(calls, monkeypatch):
    monkeypatch.chdir(FOLDER)
    names = first_cell()
    assert not names["hosted"] and names["root"] == FOLDER.parent
    assert calls.commands == []


def test_first_cell_clones_the_tag_once_its_address_is_set(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="set REPOSITORY, in this cell"):
        first_cell()
    names = first_cell(repository="https://example.org/nft_jax")
    assert names["hosted"]
    ((*words, address, folder),) = calls.commands
    assert words[:2] == ["git", "clone"] and f"--branch={names['TAG']}" in words
    assert (address, folder) == ("https://example.org/nft_jax", str(tmp_path / "nft_jax"))


@pytest.mark.parametrize("machine", ["cpu", "tpu", "cuda"])
def test_install_keeps_the_jax_of_the_runtime(runtime, calls, installed, tmp_path, machine):
    parts = {"jax": "0.11.2", "jaxlib": "0.11.2", "libtpu": "0.0.42.1", "jax-cuda12-plugin": "0.11.2"}
    installed |= parts | {"jax_cuda12_pjrt": "0.11.2", "jaxtyping": "0.3", "numpy": "2.4", "flax": "0.9"}
    runtime.install(machine)
    (command,) = calls.commands
    constraints = (tmp_path / command[command.index("--constraint") + 1]).read_text().split()
    assert sorted(constraints) == sorted([*(f"{k}=={v}" for k, v in parts.items()), "jax_cuda12_pjrt==0.11.2"])
    assert "[" not in command[-3]


@pytest.mark.parametrize(
    ("machine", "extra", "plugin"),
    [("cpu", "", {}), ("tpu", "[tpu]", {}), ("cuda", "[cuda12]", {}), ("cuda", "[cuda13]", {"jax-cuda13-plugin": "1"})],
)
def test_install_replaces_an_unfit_jax_by_that_of_the_accelerator(
    runtime, calls, installed, capsys, machine, extra, plugin
):
    installed |= {"jax": "0.4.1"} | plugin
    calls.fails = 1
    runtime.install(machine)
    assert len(calls.commands) == 2
    assert calls.commands[1][-1] == f"{FOLDER.parent}{extra}"
    assert "jax==0.4.1" in capsys.readouterr().out


def test_install_installs_the_jax_of_the_accelerator_if_there_is_none(runtime, calls, installed):
    runtime.install("tpu")
    assert [command[-1] for command in calls.commands] == [f"{FOLDER.parent}[tpu]"]


def test_describe_devices_refuses_an_accelerator_that_jax_does_not_find(runtime, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(RuntimeError, match=r"(?s)accelerator \(tpu\).*finds only CPUs.*restart.*JAX_PLATFORMS=cpu"):
        runtime.describe_devices(["cpu: cpu"], "tpu")
    assert runtime.describe_devices(["tpu: TPU v5 lite"], "tpu") == "tpu: TPU v5 lite"
    assert runtime.describe_devices(["cpu: cpu"], "cpu") == "cpu: cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert runtime.describe_devices(["cpu: cpu"], "tpu") == "cpu: cpu"
