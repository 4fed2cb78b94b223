"""Several processes as one program: started only when asked for; what they do together, and what one does for all.

Process 0 writes and prints; all processes call the same programs in the same order.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from nft_jax.compat import coordination, detect_cluster
from nft_jax.processes import ending
from nft_jax.processes.ending import is_multiprocess
from nft_jax.processes.rollcall import is_loopback, roll_call

AUTO = "auto"
VARIABLES = {name: f"NFT_JAX_{name.upper()}" for name in ("distributed", "processes", "process")}
_barriers = itertools.count()


class Launch(NamedTuple):
    """How processes find one another: `address` is HOST:PORT of process 0, or "auto", which finds all itself."""

    address: str
    processes: int | None = None
    process: int | None = None


def read_launch(given: Mapping[str, Any], environment: Mapping[str, str]) -> Launch | None:
    """What flags (`distributed`, `processes`, `process`; None where not given) and environment ask for; None: nothing.

    A flag goes before its variable NFT_JAX_DISTRIBUTED, NFT_JAX_PROCESSES, NFT_JAX_PROCESS.

    Raises:
      ValueError: for what can't be meant.
    """
    values = {name: given[name] if given[name] is not None else environment.get(VARIABLES[name]) for name in VARIABLES}
    if given["distributed"] == "":
        # One process, whatever a launcher's environment says.
        values = {name: given[name] for name in VARIABLES}
    what, numbers = values["distributed"] or "", {name: values[name] for name in ("processes", "process")}
    told = {name: value for name, value in numbers.items() if value not in (None, "")}
    if not what or what == AUTO:
        if told:
            names = " and ".join(f"--{name}={value}" for name, value in told.items())
            remedy = "leave them out" if what else "give --distributed=HOST:PORT too, of process 0"
            why = "finds these by itself" if what else "is not given"
            raise ValueError(f"{names}: --distributed{'=auto' if what else ''} {why}; {remedy}{_variables()}")
        return Launch(AUTO) if what else None
    host, colon, port = what.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"--distributed={what}: use HOST:PORT of process 0, like 10.0.0.1:8476, or auto on Cloud TPU, GKE, SLURM "
            f"and MPI{_variables()}"
        )
    processes, process = (_whole_number(name, numbers[name], what) for name in ("processes", "process"))
    if processes < 1:
        raise ValueError(f"--processes={processes}: must be positive{_variables()}")
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process}: of {processes} processes, use one of 0 to {processes - 1}, another one in each"
            f"{_variables()}"
        )
    return Launch(what, processes, process)


def _whole_number(name, value, address):
    try:
        return int(value)
    except (TypeError, ValueError):
        told = "is missing" if value in (None, "") else f"got {value!r}"
        raise ValueError(
            f"--distributed={address} needs --processes=N, the same everywhere, and --process=i, from 0 to N − 1: "
            f"--{name} {told}{_variables()}"
        ) from None


def _variables():
    return f" (by the environment: {', '.join(VARIABLES.values())})"


def start(launch: Launch | None, wait_seconds: int = 300, heartbeat_seconds: int = 60) -> None:
    """Finds the other processes, if `launch` asks for any.

    Later, a process that is silent for `heartbeat_seconds` is taken for dead, and ends the others (`ending.lost`).

    Raises:
      ValueError: when the processes don't find one another within `wait_seconds`, or the environment names none.
    """
    if launch is None:
        return
    address, processes, process, devices = _detected(wait_seconds) if launch.address == AUTO else (*launch, None)
    print(
        f"waiting for {processes} processes at {address}, at most {wait_seconds} s (later, one that is silent for "
        f"{heartbeat_seconds} s is taken for dead)",
        flush=True,
    )
    roll_call(address, processes, process, wait_seconds)
    # Its notifier is a handler of SIGTERM in C++, which would swallow the signal until the run's own is there.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    ending.handle_aborts()
    jax.distributed.initialize(
        address,
        processes,
        process,
        devices,
        cluster_detection_method="deactivate",
        coordinator_bind_address=address if is_loopback(address) else None,
        initialization_timeout=wait_seconds,
        heartbeat_timeout_seconds=heartbeat_seconds,
        shutdown_timeout_seconds=wait_seconds,
    )


def _detected(seconds):
    address, processes, process, devices = detect_cluster(seconds)
    if None in (address, processes, process):
        raise ValueError(
            f"--distributed=auto: the environment is none of Cloud TPU, GKE, SLURM and MPI; use "
            f"--distributed=HOST:PORT --processes=N --process=i{_variables()}"
        )
    return address, processes, process, devices


def barrier(name: str, seconds: int = 600) -> None:
    """Waits until all processes are here; `name` is for messages."""
    if is_multiprocess():
        coordination.client.wait_at_barrier(f"nft_jax/{next(_barriers)}/{name}", seconds * 1000)


def on_process_0(act: Callable[[], Any], name: str) -> None:
    """Process 0 acts, and the others wait until it has."""
    if not coordination.process_id:
        act()
    barrier(name)


def any_process(value: bool) -> bool:
    """Whether it is so in any process; all call it at the same place, when no program runs."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value)))) if is_multiprocess() else value


def gather(tree: Any) -> Any:
    """Arrays of which each process may have but a part, whole and on the host; all processes call it."""
    return multihost_utils.process_allgather(tree, tiled=True) if is_multiprocess() else jax.device_get(tree)


def compile_collectives(step: jax.stages.Compiled) -> None:
    """Compiles, ahead of the first step, what its end needs of several processes: to agree, to save, to be logged."""
    if is_multiprocess():
        any_process(False)
        multihost_utils.sync_global_devices("rehearsal")
        groups, shardings = step.out_info[1].last, step.output_shardings[1].last
        gather(jax.tree.map(lambda x, sharding: jnp.zeros(x.shape, x.dtype, device=sharding), groups, shardings))


def place(tree: Any, shardings: Any) -> Any:
    """Host arrays, the same in every process, on the devices as `shardings` say; each process puts its own part."""
    if not is_multiprocess():
        return jax.device_put(tree, shardings)

    def put(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)


def check_mesh(mesh: Mesh) -> None:
    """Checks that each process has its part of the mesh.

    Raises:
      ValueError: when devices are left out.
    """
    if is_multiprocess() and mesh.size != jax.device_count():
        raise ValueError(
            f"the mesh {dict(mesh.shape)} takes {mesh.size} of {jax.device_count()} devices; with several processes it "
            f"must take all, so that each has its part: use config.mesh.data=-1"
        )
