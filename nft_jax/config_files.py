"""Config files: those that come with the package (`configs/` of a checkout, or of an installed wheel), and others."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from nft_jax import command_words
from nft_jax.config import read_saved_config
from nft_jax.names import suggestion
from nft_jax.own_code import register


def names() -> list[str]:
    """Returns the names of all config files."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("[!_]*.py")})


def find(name: str) -> Path | None:
    """Returns the file of a name, or None."""
    return next((path for folder in _folders() if (path := folder / f"{name}.py").is_file()), None)


def locate(name: str) -> str:
    """Returns what ml_collections loads: a file, `NAME.py` of the shipped configs, or the `config.json` of a run.

    Raises:
      FileNotFoundError: for no such file, with the names of the shipped configs.
      ValueError: for a `config.json` that this version did not write, and for a file of another kind.
    """
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        read_saved_config(name)  # ml_collections would wrap its error in a traceback
        return f"{__file__}:{name}"
    if path.is_file() and path.suffix == ".py":
        register(name)
        return name
    if shipped := find(name.removesuffix(".py")):
        return str(shipped)
    if path.is_file():
        raise ValueError(f"--config={name}: give a .py file with a function get_config(), or the config.json of a run")
    run = f"; the config of the run in it: --config={path / 'config.json'}" if (path / "config.json").is_file() else ""
    near = run or suggestion(path.stem.strip().lower(), names())
    raise FileNotFoundError(
        f"--config={name}: no such file, and no shipped config of that name; there are: {', '.join(names())}{near}"
    )


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


def add_path(words: list[str], default: str | None, open_workdir: Callable[[str], Path]) -> list[str]:
    """Returns the words with the config's path first: from --config, else from the run in --workdir.

    `open_workdir` returns the local folder of a workdir, which may be in a bucket.

    Raises:
      FileNotFoundError, ValueError: for a config or workdir that can't be used.
    """
    given = command_words.take(words, "--config")
    name = given.value
    if name is None:
        workdir = command_words.take(words, "--workdir").value
        path = (open_workdir(workdir) if workdir else Path()) / "config.json"
        name = str(path) if workdir and path.is_file() else default
    path = [] if name is None else [f"--config={locate(name)}"]
    return [*given.rest[:1], *path, *given.rest[1:]]
