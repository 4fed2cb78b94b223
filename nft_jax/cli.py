"""What every `python -m nft_jax.<name>` shares: the flags `--config` and `--workdir`, and errors a person can read."""

import functools
import gc
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from nft_jax import config_files
from nft_jax.config import Config, load
from nft_jax.processes import distributed, ending
from nft_jax.processes.preflight import preflight
from nft_jax.run import compile_cache, remote_workdir

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, or the bare name of one in configs/; change values by --config.section.field=value. "
    "The workdir of a run has its own: without --config, that is taken.",
)
DEBUG = flags.DEFINE_bool("debug_errors", False, "Show the whole traceback of an error in the input.")
COMPILE_CACHE = flags.DEFINE_bool(
    "compile_cache", True, "Keep compiled programs in $JAX_COMPILATION_CACHE_DIR, else $NFT_JAX_CACHE/xla."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run, or gs://BUCKET/PATH; everything that the run writes goes there."
)


def run(
    main: Callable[[Config, Path | None], None],
    usage: str,
    *,
    several: bool = False,
    needs_workdir: bool = True,
    default_config: str | None = None,
) -> None:
    """Parses the command line, checks the configuration, and calls `main(config, workdir)`.

    `several`: the program can be run by several processes, which find and check one another first. Without
    `needs_workdir` it may be None. `default_config` names the config that is taken where none is given. A wrong flag,
    setting or value ends the process with code 2 and one message, before any device is touched; a disk that fails ends
    it with code 1, another process that is gone with code 75.
    """
    sys.modules["__main__"].__doc__ = usage
    for name in ("config", "workdir", "compile_cache", *(_define_several() if several else ())):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])

    def start(words):
        # Orbax says a page of routine at each checkpoint.
        logging.set_verbosity(logging.WARNING)
        if len(words) > 1:
            stop(f"what is {words[1]!r}? Settings are written --config.section.field=value")
        if FLAGS["config"].value is None or (needs_workdir and not WORKDIR.value):
            stop(
                "both --config=FILE and --workdir=DIR are needed, e.g. --config=tiny --workdir=runs/tiny "
                "(a workdir that holds a run has its config: there, --workdir alone will do)"
                if needs_workdir
                else "--config=FILE is needed, e.g. --config=tiny"
            )
        config = _load()
        if not COMPILE_CACHE.value:
            jax.config.update("jax_enable_compilation_cache", False)
        compile_cache.start()
        try:
            workdir = remote_workdir.opened(WORKDIR.value) if WORKDIR.value else None
            if several:
                _start(config, workdir)
                remote_workdir.level(workdir)
            main(config, workdir)
            if workdir is not None:
                remote_workdir.share(workdir)
        except (ValueError, FileNotFoundError) as error:
            _check_loss(error)
            if DEBUG.value:
                raise
            stop(f"{error}\n(--debug_errors shows where)")
        except OSError as error:
            _check_loss(error)
            if DEBUG.value:
                raise
            # Orbax leaves coroutines of a failed write behind, which would say pages when the interpreter ends.
            sys.unraisablehook = lambda _: None
            gc.collect()
            stop(str(error), code=1)
        except Exception as error:
            _check_loss(error)
            if not ending.is_multiprocess():
                raise
            traceback.print_exc()
            ending.exit_process(1)

    app.run(start, flags_parser=functools.partial(_parse, default_config))


def stop(message: str, code: int = 2) -> None:
    """Ends the process; code 2 means that the command was wrong, 1 that the machine failed it."""
    print(f"error: {message}", file=sys.stderr)
    ending.exit_process(code)


def _define_several() -> list[str]:
    """The flags of a program that several processes can run together; their names."""
    by = distributed.VARIABLES
    flags.DEFINE_string(
        "distributed",
        None,
        "Run as one of several processes: HOST:PORT of process 0, or auto on Cloud TPU, GKE, SLURM and MPI. By default "
        f"as {by['distributed']} says, else one process.",
    )
    flags.DEFINE_integer("processes", None, f"How many there are, beside HOST:PORT. By default {by['processes']}.")
    flags.DEFINE_integer("process", None, f"Which of them this is, from 0. By default {by['process']}.")
    flags.DEFINE_integer("wait_seconds", 300, "How long processes wait for one another at the start.", lower_bound=1)
    flags.DEFINE_integer("heartbeat_seconds", 60, "A process silent for so long is taken for dead.", lower_bound=10)
    return ["distributed", "processes", "process", "wait_seconds", "heartbeat_seconds"]


def _start(config, workdir):
    given = {name: FLAGS[name].value for name in distributed.VARIABLES}
    launch = distributed.read_launch(given, os.environ)
    distributed.start(launch, FLAGS.wait_seconds, FLAGS.heartbeat_seconds)
    preflight(config, workdir, FLAGS.wait_seconds)


def _check_loss(error):
    if ending.is_process_loss(error):
        ending.exit_after_loss(f"another process is gone: {str(error).splitlines()[0][:200]}")


def _load():
    try:
        return load(CONFIG.value)
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        # ml_collections reads the file late, and wraps what went wrong in it.
        stop(f"{FLAGS['config'].config_filename}: {_in_words(error.__cause__ or error)}")


def _parse(default_config, argv):
    try:
        # ml_collections looks for the settings in sys.argv itself.
        sys.argv = _with_config_path(argv, default_config)
        return FLAGS(sys.argv)
    except flags.Error as error:
        stop(f"{error}; --help lists the flags")
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        stop(_in_words(error))


def _in_words(error):
    """What ml_collections raises from the depth of its parser, as one sentence."""
    if near := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error)):
        return f"the configuration has no setting {near[2]!r}; did you mean {near[1]!r}?"
    if isinstance(error, KeyError | AttributeError) and (unknown := re.search(r"['\"](\w+)['\"\\]*$", str(error))):
        return f"the configuration has no setting {unknown[1]!r}"
    return str(error)


def _with_config_path(argv, default):
    """The config's path, ahead of the settings that change it: of `--config=NAME`, else of the run in `--workdir`."""
    words, name = _taken(argv, "--config")
    if name is None:
        workdir = _taken(argv, "--workdir")[1]
        path = (remote_workdir.opened(workdir) if workdir else Path()) / "config.json"
        name = str(path) if workdir and path.is_file() else default
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
        return f"{config_files.__file__}:{name}" if name.endswith(".json") else name
    if path := config_files.find(name):
        return str(path)
    raise FileNotFoundError(
        f"--config={name}: no such file, and no shipped config of that name; there are: "
        f"{', '.join(config_files.names())}"
    )
