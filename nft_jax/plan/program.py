"""The step that trains, compiled for devices that need not be present, and what the compiler says of it."""

import contextlib
import re
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax

from nft_jax.compat import plan_for_gpus
from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.experiment import Experiment, build_experiment, compile_step
from nft_jax.machine.chips import GIB, chip_of
from nft_jax.plan.buffers import Buffer, largest_buffers
from nft_jax.plan.gpus import cuda_plugin
from nft_jax.run.workdir import versions
from nft_jax.types import Prompts

# How libtpu refuses a program that is too large: by its temporaries alone, or by all of its memory.
_REFUSALS = (
    r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm",
    r"temporaries \(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)",
)
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": GIB}


class TooLarge(Exception):
    """The compiler refuses the program, because it needs more memory than a device has.

    Attributes:
      bytes: Bytes of a device's memory that the program needs.
      limit: Bytes that it may use.
      buffers: Its largest buffers, where the compiler names them.
    """

    def __init__(self, needed: int, limit: int, message: str, buffers: Sequence[Buffer] = ()):
        lines = [f"needs {needed / GIB:.2f} GiB a device, which has {limit / GIB:.2f}: {message}"]
        if buffers:
            lines += ["its largest buffers, not all in use at once:", *(f"  {buffer}" for buffer in buffers)]
        super().__init__("\n".join(lines))
        self.bytes, self.limit, self.buffers = needed, limit, buffers


class Compiled(NamedTuple):
    """A compiled step.

    Attributes:
      peak: Bytes of a device at the peak.
      arguments: Bytes of a device for the program's arguments.
      temporaries: Bytes of a device for its temporaries.
      host: Bytes of the host's memory that a device uses.
      seconds: Seconds of compilation.
      text: The program; "" where the compiler cannot print it.
      why: The compiler's reason for that.
      compiler: Its package and version.
    """

    peak: int
    arguments: int
    temporaries: int
    host: int
    seconds: float
    text: str
    why: str
    compiler: str


class NoGrader:
    """Takes the place of the grader in a step that is only compiled."""

    def submit(self, *_: object) -> None:
        raise RuntimeError("a planned step is compiled, and never run")

    __call__ = submit


def build_planned_experiment(config: Config, devices: list[jax.Device], dataset: Dataset | None = None) -> Experiment:
    """Builds the experiment as it would be on these devices; starts no process, and leaves no file.

    Raises:
      FileNotFoundError, ValueError: As `build_experiment`.
    """
    with tempfile.TemporaryDirectory() as folder:
        return build_experiment(config, Path(folder), devices, dataset=dataset)


def compile_planned_step(experiment: Experiment) -> jax.stages.Compiled:
    """Compiles the step for the experiment's mesh, from shapes alone.

    Raises:
      TooLarge: When the compiler finds that it does not fit. Compilers for GPUs don't refuse it; there it must fit the
        memory of the data sheet.
    """
    optimizer, table = experiment.make_optimizer(), experiment.dataset.tables["train"]
    prompts = Prompts(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (table.token_QP, table.length_Q)))
    parts = experiment.step(optimizer, NoGrader()), experiment.abstract_state(optimizer), prompts
    device = experiment.model.mesh.devices.flat[0]
    on_gpus, compiler = device.platform == "gpu", name_compiler(device.platform)
    with tempfile.TemporaryDirectory() as folder:
        # The compiler's message has the total alone; these files have the buffers, also of a program that is refused.
        options = {"xla_dump_to": folder} if on_gpus or device.platform == "tpu" else None
        try:
            with plan_for_gpus() if on_gpus else contextlib.nullcontext():
                program = compile_step(*parts, experiment.state_shardings(optimizer), options)
        except jax.errors.JaxRuntimeError as error:
            refusal = next((match for words in _REFUSALS if (match := re.search(words, str(error)))), None)
            if refusal is None:
                raise
            sizes = refusal.groups()
            needed, limit = (int(float(size) * _UNIT[unit]) for size, unit in (sizes[:2], sizes[2:]))
            message = f"{compiler}: {str(error).splitlines()[0]}"
            raise TooLarge(needed, limit, message, largest_buffers(Path(folder))) from error
        if on_gpus and (chip := chip_of(device.device_kind)) is not None:
            needed = program.memory_analysis().peak_memory_in_bytes
            if needed > chip.memory:
                raise TooLarge(needed, int(chip.memory), f"compiled by {compiler}", largest_buffers(Path(folder)))
    return program


def analyze_step(experiment: Experiment) -> Compiled:
    """Compiles the step, and returns what the compiler says of it; raises as `compile_planned_step`."""
    began = time.perf_counter()
    program = compile_planned_step(experiment)
    seconds, memory, text, why = time.perf_counter() - began, program.memory_analysis(), "", ""
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError as error:
        why = str(error).splitlines()[0]
    peak = memory.peak_memory_in_bytes
    platform = experiment.model.mesh.devices.flat[0].platform
    if platform == "cpu":
        # If a CPU's compiler counts a peak, it is that of temporaries alone.
        peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(
        peak=peak,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        host=memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes,
        seconds=seconds,
        text=text,
        why=why,
        compiler=name_compiler(platform),
    )


def name_compiler(platform: str) -> str:
    """Returns the package of a platform's compiler and its version: the same step may fit by one and not by another."""
    if platform == "gpu" and (plugin := cuda_plugin()):
        return f"{plugin} {metadata.version(plugin)}"
    package = "libtpu" if platform == "tpu" else "jaxlib"
    return f"{package} {versions()[package]}"
