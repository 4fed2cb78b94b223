"""What every `python -m nft_jax.<name>` shares: the flags `--config` and `--workdir`, and errors a person can read."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from nft_jax.config import Config, load

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, or the bare name of one in configs/; change values by --config.section.field=value."
)
DEBUG = flags.DEFINE_bool("debug_errors", False, "Show the whole traceback of an error in the input.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; everything that the run writes goes there.")


def run(main: Callable[[Config, Path], None], usage: str) -> None:
    """Parses the command line, checks the configuration, and calls `main(config, workdir)`.

    A wrong flag, setting or value ends the process with code 2 and one message, before any device is touched.
    """
    sys.modules["__main__"].__doc__ = usage
    for name in ("config", "workdir"):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def start(_):
        # Orbax says a page of routine at each checkpoint.
        logging.set_verbosity(logging.WARNING)
        if CONFIG.value is None or not WORKDIR.value:
            stop("both --config=FILE and --workdir=DIR are needed, e.g. --config=tiny --workdir=runs/tiny")
        try:
            config = load(CONFIG.value)
            main(config, Path(WORKDIR.value))
        except (ValueError, FileNotFoundError) as error:
            if DEBUG.value:
                raise
            stop(f"{error}\n(--debug_errors shows where)")

    app.run(start, flags_parser=_parse)


def stop(message: str) -> None:
    """Ends the process with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _parse(argv):
    try:
        return flags.FLAGS(_with_config_path(argv))
    except flags.Error as error:
        stop(f"{error}; --help lists the flags")
    except FileNotFoundError as error:
        stop(str(error))
    except (AttributeError, KeyError, TypeError) as error:
        # ml_collections raises these from the depth of the parser: the unknown key, then the nearest known one.
        names = re.findall(r"['\"](\w+)", str(error))
        if not names:
            stop(f"in the configuration: {error}")
        near = f"; did you mean {names[1]!r}?" if "Did you mean" in str(error) else ""
        stop(f"the configuration has no setting {names[0]!r}{near}")


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
