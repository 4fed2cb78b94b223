"""What every `python -m nft_jax.<name>` shares: the flags `--config` and `--workdir`, and errors a person can read."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from nft_jax.config import Config, load

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, or the bare name of one in configs/; change values by --config.section.field=value."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; everything that the run writes goes there.")


def run(main: Callable[[Config, Path], None], usage: str) -> None:
    """Parses the command line, checks the configuration, and calls `main(config, workdir)`.

    A wrong flag, setting or value ends the process with code 2 and one message, before any device is touched.
    """
    sys.modules["__main__"].__doc__ = usage

    def start(_):
        # Orbax says a page of routine at each checkpoint.
        logging.set_verbosity(logging.WARNING)
        if CONFIG.value is None or not WORKDIR.value:
            stop("both --config=FILE and --workdir=DIR are needed, e.g. --config=tiny --workdir=runs/tiny")
        try:
            config = load(CONFIG.value)
            main(config, Path(WORKDIR.value))
        except (ValueError, FileNotFoundError) as error:
            if flags.FLAGS.debug_errors:
                raise
            stop(str(error))

    app.run(start, flags_parser=_parse)


flags.DEFINE_bool("debug_errors", False, "Show the whole traceback of an error in the input.")


def stop(message: str) -> None:
    """Ends the process with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _parse(argv):
    try:
        return flags.FLAGS(_with_config_path(argv))
    except flags.Error as error:
        stop(f"{error}; --help lists the flags")
    except (AttributeError, KeyError, FileNotFoundError, TypeError) as error:
        # ml_collections raises these from the depth of the parser, with its own "did you mean".
        stop(f"in the configuration: {str(error).strip(chr(34) + chr(39)).replace(chr(92) + 'n', ' ')}")


def _with_config_path(argv):
    prefix = "--config="
    return [prefix + find_config(word.removeprefix(prefix)) if word.startswith(prefix) else word for word in argv]


def find_config(name: str) -> str:
    """The path of a config: `name` itself if it is a file, or `NAME.py` of the configs shipped with the package.

    Raises:
      FileNotFoundError: when there is neither, with the names there are.
    """
    if Path(name).is_file():
        return name
    shipped = importlib.util.find_spec("nft_jax.configs")
    folders = list(shipped.submodule_search_locations) if shipped else []
    folders.append(str(Path(__file__).resolve().parent.parent / "configs"))
    for folder in folders:
        path = Path(folder) / f"{name}.py"
        if path.is_file():
            return str(path)
    known = sorted({path.stem for folder in folders for path in Path(folder).glob("[!_]*.py")})
    raise FileNotFoundError(
        f"--config={name}: no such file, and no shipped config of that name; there are: {', '.join(known)}"
    )
