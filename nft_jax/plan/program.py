"""The very step that trains, compiled for devices that may not be there, and what the compiler says of it."""

import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.experiment import Experiment, compile_step
from nft_jax.machine.chips import GIB
from nft_jax.types import Prompts
from nft_jax.update.optimizer import Optimizer, make_optimizer

# How libtpu says that a program is too large: with temporaries alone, or with all that it laid out.
_REFUSALS = (
    r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm",
    r"temporaries \(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)",
)
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": GIB}


class TooLarge(Exception):
    """The compiler refuses the program: it needs `bytes` of a device's memory, of which it may have `of`."""

    def __init__(self, needed: int, of: int, said: str):
        super().__init__(f"needs {needed / GIB:.2f} GiB a device, which has {of / GIB:.2f}: {said}")
        self.bytes, self.of = needed, of


class Compiled(NamedTuple):
    """A compiled step.

    `peak`, `arguments`, `temporaries`  bytes of a device    `host`  bytes of the host's memory that a device uses
    `text`  the program, "" where this compiler can't print it (`why` says what it said)
    """

    peak: int
    arguments: int
    temporaries: int
    host: int
    seconds: float
    text: str
    why: str


@contextmanager
def experiment_on(
    config: Config, devices: list[jax.Device], dataset: Dataset | None = None
) -> Iterator[tuple[Experiment, Optimizer]]:
    """The experiment as it would be on these devices, and its optimizer; the workers that grade are one that idles.

    Raises:
      ValueError: as `Experiment`.
    """
    # Graders are no part of the program.
    idle = dataclasses.replace(config.verify, workers=1, grader="boxed_exact", second_grader="")
    with (
        tempfile.TemporaryDirectory() as folder,
        Experiment(dataclasses.replace(config, verify=idle), Path(folder), devices, dataset=dataset) as experiment,
    ):
        updates = config.steps * config.updates_per_step
        yield experiment, make_optimizer(config.optimizer, updates, experiment.axes)


def compiled_step(experiment: Experiment, optimizer: Optimizer) -> jax.stages.Compiled:
    """The step's program for the experiment's mesh.

    Raises:
      TooLarge: when the compiler finds that it doesn't fit.
    """
    table = experiment.dataset.tables["train"]
    prompts = Prompts(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (table.token_NP, table.length_N)))
    parts = experiment.step(optimizer), experiment.abstract_state(optimizer), prompts
    try:
        return compile_step(*parts, experiment.state_shardings(optimizer))
    except jax.errors.JaxRuntimeError as error:
        said = next((found for words in _REFUSALS if (found := re.search(words, str(error)))), None)
        if said is None:
            raise
        needed, of = (int(float(size) * _UNIT[unit]) for size, unit in (said.groups()[:2], said.groups()[2:]))
        raise TooLarge(needed, of, str(error).splitlines()[0]) from error


def compiled(experiment: Experiment, optimizer: Optimizer) -> Compiled:
    """What the compiler says of the step; raises as `compiled_step`."""
    began = time.perf_counter()
    program = compiled_step(experiment, optimizer)
    seconds, memory, printed, why = time.perf_counter() - began, program.memory_analysis(), "", ""
    try:
        printed = program.as_text()
    except jax.errors.JaxRuntimeError as error:
        why = str(error).splitlines()[0]
    peak = memory.peak_memory_in_bytes
    if experiment.mesh.devices.flat[0].platform == "cpu":
        # Where a CPU's compiler counts a peak, it is of temporaries alone.
        peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(
        peak=peak,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        host=memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes,
        seconds=seconds,
        text=printed,
        why=why,
    )
