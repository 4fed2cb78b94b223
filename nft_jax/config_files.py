"""The config files that come with the package, by bare name: `configs/` of a checkout, or of an installed wheel."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from nft_jax.config import read_saved_config


def names() -> list[str]:
    """Returns the names of all config files."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("[!_]*.py")})


def find(name: str) -> Path | None:
    """Returns the file of a name, or None."""
    return next((path for folder in _folders() if (path := folder / f"{name}.py").is_file()), None)


def config(name: str) -> ConfigDict:
    """Returns the config of the file with this name, for another config file to change.

    Raises:
      FileNotFoundError: for an unknown name, with the known ones.
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
    """Returns the config in the `config.json` of a run; `ml_collections` loads it as `config_files.py:PATH`."""
    return read_saved_config(path)
