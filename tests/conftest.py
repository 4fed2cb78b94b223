"""Eight fake CPU devices, strict array semantics, and the optional data folder: for every test of this folder."""

import importlib.metadata
import os
import signal
import warnings
from pathlib import Path

# Read by JAX when it is first imported, so before anything below.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
# XLA aborts on a flag that it doesn't know: only for the versions that were tried.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Halves compile time.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Where another process keeps the other core busy, the parts that threads compile only cost more.
if "PYTEST_XDIST_WORKER" in os.environ and importlib.metadata.version("jaxlib").startswith(("0.10.", "0.12.")):
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
# The suite compiles much and runs little: a third less time. `JAX_DISABLE_MOST_OPTIMIZATIONS=0` tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What one test compiles must not depend on what another has.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

# What nohup ignores, the processes of a test would ignore too. One that starts has the default in place of a handler.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

import jax
import pytest

# A silent broadcast or promotion is where a shape or precision bug hides.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

ROOT = Path(__file__).parents[1]
# Folders whose files share compiled programs.
SHARING = ("tests/rollout", "tests/smoke", "tests/step")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where pytest-xdist has several processes, what shares compiled programs goes to one: a file, or a folder."""
    from xdist.scheduler import LoadFileScheduling

    class BySharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in SHARING if file.startswith(f"{folder}/")), file)

    return BySharing(config, log)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real problems and tokenizers, where the machine has them."""
    folder = Path(os.environ.get("NFT_JAX_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no optional data folder {folder}: set NFT_JAX_DATA")
    return folder


@pytest.fixture
def h100(monkeypatch):
    """A GPU to lower Triton kernels for, where none is: JAX 0.11 asks which, and deprecates them."""
    from jax.experimental.pallas import triton

    if hasattr(triton, "get_gpu_info_from_version"):
        found = triton.get_gpu_info_from_version(triton.GpuVersion.H100)
        monkeypatch.setattr("jax._src.pallas.triton.gpu_info.get_gpu_info", lambda: found)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        yield
