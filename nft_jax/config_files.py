"""The experiment files that come with the package, by bare name: `configs/` of a checkout, or of an installed wheel."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from nft_jax.config import stored


def names() -> list[str]:
    """All names there are."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("[!_]*.py")})


def find(name: str) -> Path | None:
    """The file of a name, or None."""
    return next((path for folder in _folders() if (path := folder / f"{name}.py").is_file()), None)


def config(name: str) -> ConfigDict:
    """What the file of a name gives, for a sibling of it to change.

    Raises:
      FileNotFoundError: when there is none, with the names there are.
    """
    path = find(name)
    if path is None:
        raise FileNotFoundError(f"no shipped config {name!r}; there are: {', '.join(names())}")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def _folders() -> list[Path]:
    installed = importlib.util.find_spec("nft_jax.configs")
    folders = [Path(folder) for folder in installed.submodule_search_locations] if installed else []
    return [*folders, Path(__file__).resolve().parent.parent / "configs"]


def get_config(path: str) -> ConfigDict:
    """The configuration of a run's `config.json`: `ml_collections` loads this file as `config_files.py:PATH`."""
    return stored(path)
