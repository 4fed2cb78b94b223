"""The command line that every `python -m nft_jax.NAME` shares: its flags, its help, and errors in one message."""

import contextlib
import functools
import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from nft_jax import command_words, config_files
from nft_jax.compat import coordination
from nft_jax.config import Config, default, load, set_own_option, to_dict
from nft_jax.config.reference import check_names, help_text, sections, take_own_options
from nft_jax.names import quote
from nft_jax.own_code import describe_error, is_own
from nft_jax.printing import show_control_characters
from nft_jax.processes import distributed, ending
from nft_jax.run import compile_cache, remote_workdir
from nft_jax.run.fingerprint import own_code
from nft_jax.run.lock import WorkdirLock
from nft_jax.run.streams import outlive_readers
from nft_jax.run.workdir import run_of, versions

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, or the bare name of one in configs/; change values by --config.section.field=value. --help "
    "lists every setting with its value. Without --config, a workdir that holds a run gives the config of that run.",
)
DEBUG = flags.DEFINE_bool("debug_errors", False, "Show the whole traceback of an error in the input.")
COMPILE_CACHE = flags.DEFINE_bool(
    "compile_cache", True, "Keep compiled programs in $JAX_COMPILATION_CACHE_DIR, else $NFT_JAX_CACHE/xla."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run, or gs://BUCKET/PATH; everything that the run writes goes there."
)
HELP = ("--help", "-help")
# What `given_words` returns; `_parse` sets it.
_GIVEN: list[str] = []
# By NumPy, by XLA of any device, and by the C++ below it.
_OUT_OF_MEMORY = re.compile("MemoryError|RESOURCE_EXHAUSTED|bad_alloc|[Oo]ut of memory")
# A kernel's blocks are too large for any number of slots; XLA gives it the code of a lack of memory.
_SHARED_MEMORY = re.compile("[Ss]hared memory size limit exceeded")
_MEMORY_REMEDY = (
    "smaller values of config.rollout.slots, config.packing.rows_per_micro_batch and "
    "config.evaluation.problems_per_batch, or a mesh of more devices, need less; python -m nft_jax.plan says what a "
    "step needs"
)


def run(
    main: Callable[[Config, Path | None], None],
    usage: str,
    *,
    several: bool = False,
    holds_workdir: bool = False,
    needs_workdir: bool = True,
    default_config: str | None = None,
) -> None:
    """Parses the command line, checks the configuration, and calls `main(config, workdir)`.

    An incorrect flag, setting or value ends the process with code 2 and one message, before any device is used; a disk
    failure ends it with code 1, and the loss of another process with code 75.

    Args:
      usage: the text of `--help` above the flags.
      several: whether several processes can run the program together; they first find and check one another.
      holds_workdir: whether the program locks the workdir, and the run that it is a part of, until its end.
      needs_workdir: whether --workdir must be given; else `workdir` may be None.
      default_config: the config where none is given.
    """
    outlive_readers()
    sys.modules["__main__"].__doc__ = usage
    show_control_characters()
    logging.get_absl_handler().python_handler.setStream(sys.stderr)  # it has the stream of its import
    for name in ("config", "workdir", "compile_cache", *(_define_process_flags() if several else ())):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])

    def start(words):
        # Orbax logs a page at each checkpoint.
        logging.set_verbosity(logging.WARNING)
        _check_given(words, needs_workdir)
        config = _load()
        if not COMPILE_CACHE.value:
            jax.config.update("jax_enable_compilation_cache", False)
        compile_cache.start()
        with _errors_in_one_message():
            launch = _read_launch() if several else None
            with (
                ending.exit_on_process_loss() if launch else contextlib.nullcontext(),
                contextlib.ExitStack() as stack,
            ):
                workdir = remote_workdir.open_workdir(WORKDIR.value) if WORKDIR.value else None
                lock = WorkdirLock(run_of(workdir), f"--workdir={workdir}") if workdir and holds_workdir else None
                if lock:
                    stack.callback(lock.release)
                if launch:
                    _connect_processes(launch, config, workdir, lock)
                if lock and not coordination.process_id:
                    lock.acquire()
                    # Its last holder may have gone on until then.
                    remote_workdir.pull(workdir)
                if launch:
                    distributed.check_devices()
                    remote_workdir.synchronize(workdir)
                main(config, workdir)
                if workdir is not None:
                    remote_workdir.push(workdir)

    try:
        app.run(start, flags_parser=functools.partial(_parse, default_config))
    except KeyboardInterrupt:
        stop("interrupted by Ctrl-C", code=128 + signal.SIGINT)


def given_words() -> list[str]:
    """Returns the words of the command line, which run the program again; `sys.argv` lacks a loss's own options."""
    return list(_GIVEN)


def stop(message: str, code: int = 2) -> NoReturn:
    """Ends the process with a message; code 2: the command was incorrect, code 1: the machine failed."""
    print(f"error: {message}", file=sys.stderr)
    ending.exit_process(code)


def _check_given(words: list[str], needs_workdir: bool) -> None:
    """Ends the process unless config and workdir are given, and nothing but flags, none of them empty."""
    if len(words) > 1:
        stop(f"{words[1]!r} is no flag; write a setting as --config.section.field=value")
    for name in FLAGS:
        flag = FLAGS[name]
        # A setting may be empty, and --distributed= asks for one process.
        may_be = name.startswith("config.") or name == "distributed"
        if flag.present and isinstance(flag.value, str) and not (may_be or flag.value.strip(", ")):
            stop(f"--{name}={flag.value} is empty; give a value, or leave the flag out")
    if FLAGS["config"].value is None and WORKDIR.value:
        stop(f"--workdir={WORKDIR.value} holds no run; for a new one also give --config=FILE, e.g. --config=tiny")
    if FLAGS["config"].value is None or (needs_workdir and not WORKDIR.value):
        stop(
            "both --config=FILE and --workdir=DIR are needed, e.g. --config=tiny --workdir=runs/tiny (for a workdir "
            "that holds a run, --workdir alone is enough)"
            if needs_workdir
            else "--config=FILE is needed, e.g. --config=tiny"
        )


@contextlib.contextmanager
def _errors_in_one_message() -> Iterator[None]:
    """Ends the process with one message for an error in the input or on disk, or numbers that are not finite."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        if DEBUG.value:
            raise
        if is_own(error):
            stop(f"{describe_error(error)}\n(--debug_errors shows where)")
        if isinstance(error, ValueError | FileNotFoundError):
            stop(f"{error}\n(--debug_errors shows where)")
        # Orbax leaves coroutines of a failed write behind, which would print pages when the interpreter ends.
        sys.unraisablehook = lambda _: None
        gc.collect()
        stop(str(error), code=1)
    except Exception as error:
        if is_own(error) and not DEBUG.value:
            stop(f"{describe_error(error)}\n(--debug_errors shows the whole traceback)")
        if _SHARED_MEMORY.search(str(error)) and not DEBUG.value:
            stop(
                f"a kernel needs more of a GPU core's shared memory than there is; the GPU's own memory is not short: "
                f"{str(error).splitlines()[0][:300]}\n--config.model.attention=xla leaves our kernels out "
                f"(--debug_errors shows where)",
                code=1,
            )
        if _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}") and not DEBUG.value:
            fault = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            stop(f"out of memory: {fault}\n{_MEMORY_REMEDY} (--debug_errors shows where)", code=1)
        if _is_of_the_device(error) and not DEBUG.value:
            named = os.environ.get("JAX_PLATFORMS", "")
            stop(f"JAX can't start (JAX_PLATFORMS={named!r}): {str(error) or 'no such device'}")
        if not ending.is_multiprocess():
            raise
        traceback.print_exc()
        ending.exit_process(1)


def _is_of_the_device(error: Exception) -> bool:
    """Returns whether JAX raised an error while it looked for devices."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return Path(last.filename).name == "xla_bridge.py"


def _define_process_flags() -> list[str]:
    """Defines the flags of a program that several processes can run together, and returns their names."""
    by = distributed.VARIABLES
    flags.DEFINE_string(
        "distributed",
        None,
        "Run as one of several processes: HOST:PORT of process 0, or auto on Cloud TPU, GKE, SLURM and MPI. Default: "
        f"{by['distributed']}, else one process.",
    )
    flags.DEFINE_integer("processes", None, f"Number of processes, with HOST:PORT. Default: {by['processes']}.")
    flags.DEFINE_integer("process", None, f"Number of this process, from 0. Default: {by['process']}.")
    flags.DEFINE_integer("wait_seconds", 300, "How long processes wait for one another at the start.", lower_bound=1)
    flags.DEFINE_integer("heartbeat_seconds", 60, "Silence after which a process counts as dead.", lower_bound=10)
    return ["distributed", "processes", "process", "wait_seconds", "heartbeat_seconds"]


def _read_launch() -> distributed.Launch | None:
    return distributed.read_launch({name: FLAGS[name].value for name in distributed.VARIABLES}, os.environ)


def _connect_processes(launch: distributed.Launch, config: Config, workdir: Path, lock: WorkdirLock | None) -> None:
    """Connects the processes, whose settings, versions and folder must agree; process 0 takes the lock before."""
    compared = {name: versions()[name] for name in ("nft_jax", "jax", "jaxlib")}
    facts = {"config": to_dict(config), "version": compared, "own code": own_code(config)}
    storage = remote_workdir.storage_folder(workdir)
    claim = lock.claim if lock else (lambda: "")
    distributed.start(launch, FLAGS.wait_seconds, FLAGS.heartbeat_seconds, storage, facts, claim)


def _load() -> Config:
    try:
        return load(CONFIG.value)
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        # ml_collections reports a file that it can't read here, where its value is first used.
        stop(f"{FLAGS['config'].config_filename}: {error.__cause__ or error}")


def _parse(default_config: str | None, argv: list[str]) -> list[str]:
    """Parses the flags, or prints the help with every setting, and returns the words that are no flags."""
    try:
        words = command_words.prepare([word for word in argv if word not in HELP])
        name = command_words.take(words, "--config").value
        words = config_files.add_path(words, default_config, remote_workdir.open_workdir)
        _GIVEN[:] = words[1:]
        # ml_collections looks for the settings in sys.argv.
        sys.argv, own = take_own_options(words)
        check_names(sys.argv[1:])
    except (ValueError, OSError) as error:
        stop(str(error))
    try:
        rest = FLAGS(sys.argv)
    except flags.Error as error:
        if "parsing config file" in str(error):  # of a whole traceback, its last line
            stop(f"--config={name}: {str(error).strip().splitlines()[-1]}")
        stop(f"{_describe_allowed(str(error)) or error}; --help lists the flags")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The config file raised it while it ran.
        fault = str(error.args[0] if error.args else error)
        if fault.endswith("has no attribute 'get_config'"):
            fault = "it has no function get_config(), which returns the config"
        stop(f"--config={name or default_config}: {fault}")
    except (Exception, SystemExit) as error:
        if not is_own(error) and not isinstance(error, SyntaxError):
            raise
        stop(f"--config={name}: {describe_error(error)}")
    if name and not isinstance(CONFIG.value, ConfigDict):
        kind = type(CONFIG.value).__name__
        stop(f"--config={name}: get_config() returns a {kind}, not a ConfigDict as nft_jax.config.default() makes")
    if CONFIG.value is not None:
        _set_own_options(own)
    if set(argv) & set(HELP):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # piped into `head`, help ends as that of other programs does
        app.usage(shorthelp=True, writeto_stdout=True)
        path = (command_words.take(sys.argv, "--config").value or "the defaults").rpartition(":")[2]
        print(f"\n{help_text(CONFIG.value or default(), f'--config={name}' if name else path)}")
        sys.exit(0)
    return rest


def _describe_allowed(fault: str) -> str | None:
    """Returns what is allowed in place of a value that absl can't read, if it is one of a setting."""
    found = re.match(r"flag --(no)?config\.([\w.]+)=(.*?): ", fault, re.DOTALL)
    listed = sections()
    if found and found[2] in {section.name for section in listed}:
        return f"config.{found[2]} is a section; set what is in it, by --config.{found[2]}.NAME=VALUE"
    settings = {each.name: each for section in listed for each in section.settings}
    setting = found and settings.get(found[2])
    return setting and f"config.{setting.name}={quote(found[3])}: must be {setting.allowed}"


def _set_own_options(options: dict[str, str]) -> None:
    try:
        for name, text in options.items():
            set_own_option(CONFIG.value, name, text)
    except ValueError as error:
        stop(str(error))
