"""`compile_cache.start`: its folder, a folder that can't be written, and what a second start finds in it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from nft_jax.run import compile_cache

ROOT = Path(__file__).parents[2]
# Programs of two kinds: one that only computes, on eight devices, and one that calls the host, as the step does.
STARTS = """
import json, sys
import jax, numpy as np
from nft_jax.run import compile_cache
from nft_jax.run.compilations import Compilations

def double(x):
    return x * 2 - x.sum()

def call(x):
    return jax.experimental.io_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct((3,), np.float32), x)

compile_cache.start()
x = np.arange(8, dtype=np.float32)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
with Compilations() as compilations:
    values = [jax.jit(double)(split).tolist(), jax.jit(call)(x[:3]).tolist()]
found = {name: one.cached for one in compilations.programs for name in ("double", "call") if name in one.name}
print(json.dumps([values, found, compilations.finish()]))
"""


@pytest.fixture
def settings(monkeypatch):
    """Clears the settings of the cache, and restores them afterwards."""
    names = "jax_compilation_cache_dir", "jax_enable_compilation_cache"
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.delenv("NFT_JAX_CACHE", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compile_cache_start_takes_the_folder_of_the_environment(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(compile_cache.start()) == f"{tmp_path}/home/.cache/nft_jax/xla"
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path / "ours"))
    assert str(compile_cache.start()) == f"{tmp_path}/ours/xla" == jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of jax"))
    assert str(compile_cache.start()) == f"{tmp_path}/of jax"
    assert list((tmp_path / "of jax").iterdir()) == []


def test_compile_cache_start_reports_a_folder_that_can_not_be_written(settings, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    taken = tmp_path / "taken" / f"probe.{socket.gethostname()}.{os.getpid()}"
    taken.mkdir(parents=True)
    for bad in (tmp_path / "file" / "xla", tmp_path / "taken"):
        jax.config.update("jax_compilation_cache_dir", str(bad))
        assert compile_cache.start() is None
        assert jax.config.jax_compilation_cache_dir is None
        printed = capsys.readouterr().err
        assert f"the compile cache {bad} can't be written, and isn't used: " in printed
        assert "--compile_cache=false" in printed


def test_compile_cache_start_does_nothing_when_switched_off(settings, monkeypatch, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))
    assert compile_cache.start() is None
    assert list(tmp_path.iterdir()) == []


def test_compile_cache_keeps_programs_that_do_not_call_the_host(tmp_path):
    environment = os.environ | {
        "NFT_JAX_CACHE": str(tmp_path),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    starts = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", STARTS], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        starts.append(json.loads(done.stdout))
    (first, found_first, _), (second, found_second, printed) = starts
    assert first == second == [[2.0 * x - 28 for x in range(8)], [0.0, 1.0, 2.0]]
    assert found_first == {"double": False, "call": False}
    # This fails if JAX ever learns to keep such programs.
    assert found_second == {"double": True, "call": False}
    assert "more were in the compile cache" in printed
