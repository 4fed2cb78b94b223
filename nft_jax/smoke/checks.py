"""The checks that need the devices, one after the other, each with a time limit; `nft_jax.smoke` runs them as a child.

python -m nft_jax.smoke.checks --config=smoke --workdir=DIR --results=FILE [--seconds=300]
"""

import contextlib
import dataclasses
import faulthandler
import json
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
from nft_jax.parallel.mesh import describe_mesh, shard_count
from nft_jax.run import hardware_notes
from nft_jax.smoke import kernels, line, loops
from nft_jax.smoke.loops import Failed

RESULTS = flags.DEFINE_string("results", None, "File to which each check adds a line of JSON.")
SECONDS = flags.DEFINE_integer("seconds", 300, "Time limit of each check.", lower_bound=1)
# Of a data shard: more answers than slots, and enough for groups to be mixed.
PROMPTS_PER_SHARD = 8


class Checker:
    """Runs checks, and writes to `results` what came of them: a line when one begins, and one when it has ended.

    A check that takes more than `seconds` ends the process with code 1, after the stacks of all its threads.
    """

    def __init__(self, results: Path, seconds: float):
        self.results, self.seconds, self.passed = results, seconds, True

    def __call__(self, name: str, check: Callable[[], str]) -> bool:
        """Whether it passed; what it says, or what went wrong, is written and printed."""
        self.write({"began": name})
        began, passed = time.perf_counter(), False
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)
        try:
            said = check()
            passed = True
        except Failed as failure:
            said = str(failure)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.passed &= passed
        row = {"check": name, "passed": passed, "seconds": time.perf_counter() - began, "said": said}
        self.write(row)
        print(line(row), flush=True)
        return passed

    def write(self, row: dict[str, Any]) -> None:
        with open(self.results, "a") as out:
            out.write(json.dumps(row) + "\n")


def main(config: Config, workdir: Path) -> None:
    """All checks; ends with code 1 if one failed."""
    checker = Checker(Path(RESULTS.value), SECONDS.value)
    with contextlib.ExitStack() as stack:
        if checker("hosts", hosts):
            fitted = fit(config)
            checker.write({"facts": facts(fitted)})
            held: list[Experiment] = []
            if checker("model", lambda: _built(held, stack, fitted, workdir)):
                check_parts(checker, held[0])
    sys.exit(0 if checker.passed else 1)


def _built(held, stack, config, workdir):
    held.append(stack.enter_context(open_experiment(config, workdir)))
    experiment = held[0]
    where = describe_mesh(experiment.model.mesh)
    return f"{experiment.model.parameters:,} weights on {where}, attention {experiment.model.attention.name}"


def check_parts(checker: Checker, experiment: Experiment) -> None:
    """Loops, verifier and kernels; what was seen of loops that diverge is noted for this kind of device."""
    diverged = checker("loops", lambda: loops.same_answers(experiment))
    diverged &= checker("verifier", lambda: loops.graded_once(experiment))
    for name in kernels.names(experiment.model.mesh):
        checker(name, lambda name=name: kernels.agrees(name, experiment))
    if diverged and shard_count(experiment.model.mesh) > 1:
        _note(experiment)


def hosts() -> str:
    """Every process is there with its devices, and all of them add up."""
    devices = jax.devices()
    mine = np.array([jax.process_index(), jax.local_device_count()], np.int32)
    found = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 2)
    if found[:, 0].tolist() != list(range(jax.process_count())) or found[:, 1].sum() != len(devices):
        raise Failed(f"processes and their devices: {found.tolist()}, of {jax.process_count()} and {len(devices)}")
    if len(set(found[:, 1].tolist())) > 1:
        raise Failed(f"hosts have different numbers of devices: {found[:, 1].tolist()}")
    mesh = jax.sharding.Mesh(np.asarray(devices, dtype=object), ("all",))
    everywhere, whole = (NamedSharding(mesh, PartitionSpec(*names)) for names in (("all",), ()))
    ones = jax.jit(lambda: jnp.ones(len(devices), jnp.float32), out_shardings=everywhere)()
    total = jax.jit(jnp.sum, out_shardings=whole)(ones)
    if float(total) != len(devices):
        raise Failed(f"{len(devices)} devices add up to {float(total):g}")
    return f"{len(found)} × {found[0, 1]} {devices[0].device_kind}, which add up"


def fit(config: Config) -> Config:
    """The config for these devices: a tensor axis where that leaves several data shards, and prompts for each shard."""
    count, here = jax.device_count(), jax.local_device_count()
    tensor = max(size for size in (1, 2, 4) if size == 1 or here % size == 0 and count >= 2 * size)
    mesh = dataclasses.replace(config.mesh, tensor=tensor)
    return dataclasses.replace(config, mesh=mesh, prompts_per_step=PROMPTS_PER_SHARD * count // tensor)


def facts(config: Config) -> dict[str, Any]:
    """What the parent must know to train with the same sizes; `stamp` is the same everywhere."""
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


def _note(experiment):
    mesh = experiment.model.mesh
    kind = mesh.devices.flat[0].device_kind
    details = {"shards": shard_count(mesh), "tensor": experiment.config.mesh.tensor, "date": time.strftime("%Y-%m-%d")}
    path = hardware_notes.write_note(kind, hardware_notes.DIVERGING, details | _versions())
    print(f"noted for {kind} in {path}, where rollout.lockstep=auto looks", flush=True)


if __name__ == "__main__":
    cli.run(main, __doc__, several=True)
