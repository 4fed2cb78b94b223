"""What every `python -m nft_jax.<name>` shares: the flags `--config` and `--workdir`, and errors a person can read."""

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from nft_jax import shipped
from nft_jax.config import Config, load

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, or the bare name of one in configs/; change values by --config.section.field=value. "
    "The workdir of a run has its own: without --config, that is taken.",
)
DEBUG = flags.DEFINE_bool("debug_errors", False, "Show the whole traceback of an error in the input.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; everything that the run writes goes there.")


def run(main: Callable[[Config, Path | None], None], usage: str, *, workdir: bool = True) -> None:
    """Parses the command line, checks the configuration, and calls `main(config, workdir)`.

    `workdir`: whether there must be one; else it may be None.

    A wrong flag, setting or value ends the process with code 2 and one message, before any device is touched; a disk
    that fails ends it with code 1.
    """
    sys.modules["__main__"].__doc__ = usage
    for name in ("config", "workdir"):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])

    def start(words):
        # Orbax says a page of routine at each checkpoint.
        logging.set_verbosity(logging.WARNING)
        if len(words) > 1:
            stop(f"what is {words[1]!r}? Settings are written --config.section.field=value")
        if FLAGS["config"].value is None and not workdir:
            stop("--config=FILE is needed, e.g. --config=tiny")
        if workdir and (FLAGS["config"].value is None or not WORKDIR.value):
            stop(
                "both --config=FILE and --workdir=DIR are needed, e.g. --config=tiny --workdir=runs/tiny "
                "(a workdir that holds a run has its config: there, --workdir alone will do)"
            )
        config = _load()
        try:
            main(config, Path(WORKDIR.value) if WORKDIR.value else None)
        except (ValueError, FileNotFoundError) as error:
            if DEBUG.value:
                raise
            stop(f"{error}\n(--debug_errors shows where)")
        except OSError as error:
            if DEBUG.value:
                raise
            # Orbax leaves coroutines of a failed write behind, which would say pages when the interpreter ends.
            sys.unraisablehook = lambda _: None
            gc.collect()
            stop(str(error), code=1)

    app.run(start, flags_parser=_parse)


def stop(message: str, code: int = 2) -> None:
    """Ends the process; code 2 means that the command was wrong, 1 that the machine failed it."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _load():
    try:
        return load(CONFIG.value)
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        # ml_collections reads the file late, and wraps what went wrong in it.
        stop(f"{FLAGS['config'].config_filename}: {_in_words(error.__cause__ or error)}")


def _parse(argv):
    try:
        # ml_collections looks for the settings in sys.argv itself.
        sys.argv = _with_config_path(argv)
        return FLAGS(sys.argv)
    except flags.Error as error:
        stop(f"{error}; --help lists the flags")
    except (AttributeError, KeyError, TypeError, OSError) as error:
        stop(_in_words(error))


def _in_words(error):
    """What ml_collections raises from the depth of its parser, as one sentence."""
    if near := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        return f"the configuration has no setting {near[2]!r}; did you mean {near[1]!r}?"
    if isinstance(error, KeyError | AttributeError) and (unknown := re.search(r"['\"](\w+)['\"\\]*$", str(error))):
        return f"the configuration has no setting {unknown[1]!r}"
    return str(error)


def _with_config_path(argv):
    """The config's path, ahead of the settings that change it: of `--config=NAME`, else of the run in `--workdir`."""
    words, name = _taken(argv, "--config")
    if name is None:
        workdir = _taken(argv, "--workdir")[1]
        path = Path(workdir or "") / "config.json"
        name = str(path) if workdir and path.is_file() else None
    return [*words[:1], *([] if name is None else [f"--config={find_config(name)}"]), *words[1:]]


def _taken(argv, flag):
    """The words without `flag=VALUE` or `flag VALUE`, and that value, or None."""
    for place, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return [*argv[:place], *argv[place + 1 :]], word.removeprefix(f"{flag}=")
        if word == flag and place + 1 < len(argv):
            return [*argv[:place], *argv[place + 2 :]], argv[place + 1]
    return list(argv), None


def find_config(name: str) -> str:
    """What ml_collections loads: a file, `NAME.py` of the configs shipped with the package, or a run's `config.json`.

    Raises:
      FileNotFoundError: when there is none, with the names there are.
    """
    if Path(name).is_file():
        return f"{Path(__file__).with_name('stored.py')}:{name}" if name.endswith(".json") else name
    if path := shipped.find(name):
        return str(path)
    raise FileNotFoundError(
        f"--config={name}: no such file, and no shipped config of that name; there are: {', '.join(shipped.names())}"
    )
