"""The checks that need devices, each with a time limit. `nft_jax.smoke` runs them in a child process.

python -m nft_jax.smoke.checks --config=smoke --workdir=DIR --results=FILE [--seconds=300]
"""

import contextlib
import dataclasses
import faulthandler
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.experiment import Experiment, open_experiment
from nft_jax.files import json_text
from nft_jax.parallel.mesh import describe_mesh, shard_count
from nft_jax.run import hardware_notes
from nft_jax.smoke import kernels, loops
from nft_jax.smoke.result import CheckFailure, CheckResult

# More answers than slots, and enough for groups to be mixed.
PROMPTS_PER_SHARD = 8


class Checker:
    """Runs checks, and writes a line to the file `results` when a check starts and another when it ends.

    A check that takes more than `seconds` ends the process with code 1, after printing the stacks of all threads.
    """

    def __init__(self, results: Path, seconds: float):
        self.results, self.seconds, self.passed = results, seconds, True

    def __call__(self, name: str, check: Callable[[], str]) -> bool:
        """Runs a check; writes and prints its message, or what went wrong. Returns whether it passed."""
        self.write({"started": name})
        began, passed = time.perf_counter(), False
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)
        try:
            message = check()
            passed = True
        except CheckFailure as failure:
            message = str(failure)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.passed &= passed
        result = CheckResult(name, passed, time.perf_counter() - began, message)
        self.write(result._asdict())
        print(result.line(), flush=True)
        return passed

    def write(self, row: dict[str, Any]) -> None:
        """Adds a line to the file."""
        with open(self.results, "a", encoding="utf-8") as out:
            out.write(json_text(row) + "\n")


def main(config: Config, workdir: Path) -> None:
    """Runs all checks; exits with code 1 if one failed."""
    checker = Checker(Path(flags.FLAGS.results), flags.FLAGS.seconds)
    with contextlib.ExitStack() as stack:
        if checker("hosts", check_hosts):
            config = fit_devices(config)
            checker.write({"facts": facts(config)})
            held: list[Experiment] = []
            if checker("model", lambda: _build(held, stack, config, workdir)):
                check_parts(checker, held[0])
    sys.exit(0 if checker.passed else 1)


def _build(held, stack, config, workdir):
    held.append(stack.enter_context(open_experiment(config, workdir)))
    experiment = held[0]
    where = describe_mesh(experiment.model.mesh)
    return f"{experiment.model.parameters:,} weights on {where}, attention {experiment.model.attention.name}"


def check_parts(checker: Checker, experiment: Experiment) -> None:
    """Checks loops, verifier and kernels, and notes for this kind of device whether loops may diverge."""
    diverged = checker("loops", lambda: loops.check_answers(experiment))
    diverged &= checker("verifier", lambda: loops.check_grading(experiment))
    for name in kernels.platform_kernels(experiment):
        checker(name, lambda name=name: kernels.check_kernel(name, experiment))
    if diverged and shard_count(experiment.model.mesh) > 1:
        _write_note(experiment)


def check_hosts() -> str:
    """Checks that every process is there with its devices, and that all devices take part in a sum."""
    devices = jax.devices()
    mine = np.array([jax.process_index(), jax.local_device_count()], np.int32)
    counts = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 2)
    if counts[:, 0].tolist() != list(range(jax.process_count())) or counts[:, 1].sum() != len(devices):
        total = f"{jax.process_count()} processes and {len(devices)} devices"
        raise CheckFailure(f"expected {total}, got [process, its devices]: {counts.tolist()}")
    if len(set(counts[:, 1].tolist())) > 1:
        raise CheckFailure(f"hosts have different numbers of devices: {counts[:, 1].tolist()}")
    mesh = jax.sharding.Mesh(np.asarray(devices, dtype=object), ("all",))
    sharded, whole = (NamedSharding(mesh, PartitionSpec(*names)) for names in (("all",), ()))
    ones = jax.jit(lambda: jnp.ones(len(devices), jnp.float32), out_shardings=sharded)()
    total = jax.jit(jnp.sum, out_shardings=whole)(ones)
    if float(total) != len(devices):
        raise CheckFailure(f"{len(devices)} devices sum to {float(total):g}")
    return f"{len(counts)} × {counts[0, 1]} {devices[0].device_kind}, which sum correctly"


def fit_devices(config: Config) -> Config:
    """Returns the config with a tensor axis, if that leaves several data shards, and with prompts for each shard."""
    count, here = jax.device_count(), jax.local_device_count()
    tensor = max(size for size in (1, 2, 4) if size == 1 or here % size == 0 and count >= 2 * size)
    mesh = dataclasses.replace(config.mesh, tensor=tensor)
    return dataclasses.replace(config, mesh=mesh, prompts_per_step=PROMPTS_PER_SHARD * count // tensor)


def facts(config: Config) -> dict[str, Any]:
    """Returns what the parent needs to train with the same sizes; `stamp` is equal in all processes."""
    device = jax.devices()[0]
    stamp = int(multihost_utils.broadcast_one_to_all(np.int32(time.time())))
    return {
        "process": jax.process_index(),
        "processes": jax.process_count(),
        "devices": jax.device_count(),
        "platform": device.platform,
        "kind": device.device_kind,
        "versions": _versions(),
        "tensor": config.mesh.tensor,
        "prompts": config.prompts_per_step,
        "stamp": stamp,
    }


def _versions():
    return {"jax": jax.__version__, "platform": jax.devices()[0].client.platform_version}


def _write_note(experiment):
    mesh = experiment.model.mesh
    kind = mesh.devices.flat[0].device_kind
    details = {"shards": shard_count(mesh), "tensor": experiment.config.mesh.tensor, "date": time.strftime("%Y-%m-%d")}
    path = hardware_notes.write_note(kind, hardware_notes.DIVERGING, details | _versions())
    print(f"noted for {kind} in {path}, which rollout.lockstep=auto reads", flush=True)


def _define_flags() -> None:
    flags.DEFINE_string("results", None, "File to which each check adds a line of JSON.")
    flags.DEFINE_integer("seconds", 300, "Time limit of each check.", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__, several=True)
