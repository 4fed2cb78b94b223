"""TPUs that nobody holds, to compile for: libtpu's compiler needs none."""

import os
from pathlib import Path
from typing import Any

import jax

from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.experiment import Experiment
from nft_jax.step import compile_step
from nft_jax.training.optimizer import make_optimizer
from nft_jax.types import Prompts


def topology(name: str) -> list[jax.Device]:
    """The devices of a slice such as "v5e:8x8"."""
    from jax.experimental import topologies

    # libtpu ends the process over flags of XLA that it doesn't know; jaxlib has read its own by now.
    jax.devices("cpu")
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "xla_cpu" not in flag]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    # Off a TPU VM there is no metadata server to ask, and another process may hold the library's lock.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return list(topologies.get_topology_desc(name, "tpu").devices)


def compiled_step(
    config: Config, folder: Path, devices: list[jax.Device], dataset: Dataset | None = None
) -> tuple[Experiment, Any]:
    """The experiment, and its step's program."""
    with Experiment(config, folder, devices, dataset=dataset) as experiment:
        optimizer = make_optimizer(config.optimizer, config.steps, experiment.axes)
        table = experiment.dataset.tables["train"]
        prompts = Prompts(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (table.token_NP, table.length_N)))
        parts = experiment.step(optimizer), experiment.abstract_state(optimizer), prompts
        return experiment, compile_step(*parts, experiment.state_shardings(optimizer))
