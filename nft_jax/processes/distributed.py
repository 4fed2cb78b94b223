"""Several processes that run one program: how they start, act together, and let process 0 act for all.

Process 0 writes and prints. All processes call the same functions and programs in the same order.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from nft_jax.compat import coordination, detect_cluster
from nft_jax.files import json_text
from nft_jax.processes.ending import is_multiprocess
from nft_jax.processes.rollcall import is_loopback, roll_call

AUTO = "auto"
VARIABLES = {name: f"NFT_JAX_{name.upper()}" for name in ("distributed", "processes", "process")}
_barriers = itertools.count()


class Launch(NamedTuple):
    """How processes find one another.

    Attributes:
      address: HOST:PORT of process 0, or "auto": detected from the environment, with the numbers.
      processes: How many there are; None with "auto".
      process: The number of this one, from 0; None with "auto".
    """

    address: str
    processes: int | None = None
    process: int | None = None


def read_launch(given: Mapping[str, Any], environment: Mapping[str, str]) -> Launch | None:
    """Returns the launch that flags and environment ask for; None for a single process.

    Args:
      given: The flags `distributed`, `processes` and `process`; None where not given.
      environment: Has the variables NFT_JAX_DISTRIBUTED, NFT_JAX_PROCESSES, NFT_JAX_PROCESS; a flag overrides its own.

    Raises:
      ValueError: if they are incomplete or contradict one another.
    """
    values = {name: given[name] if given[name] is not None else environment.get(VARIABLES[name]) for name in VARIABLES}
    if given["distributed"] == "":
        # A single process, even if a launcher has set the variables.
        values = {name: given[name] for name in VARIABLES}
    address, numbers = values["distributed"] or "", {name: values[name] for name in ("processes", "process")}
    if not address or address == AUTO:
        names = " and ".join(f"--{name}={value}" for name, value in numbers.items() if value not in (None, ""))
        if names:
            remedy = "leave them out" if address else "give --distributed=HOST:PORT too, of process 0"
            why = "finds these by itself" if address else "is not given"
            raise ValueError(f"{names}: --distributed{'=auto' if address else ''} {why}; {remedy}{_variables()}")
        return Launch(AUTO) if address else None
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"--distributed={address}: use HOST:PORT of process 0, like 10.0.0.1:8476, or auto on Cloud TPU, GKE, "
            f"SLURM and MPI{_variables()}"
        )
    processes, process = (_parse_number(name, numbers[name], address) for name in ("processes", "process"))
    if processes < 1:
        raise ValueError(f"--processes={processes}: must be positive{_variables()}")
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process}: of {processes} processes, use one of 0 to {processes - 1}, a different one in each"
            f"{_variables()}"
        )
    return Launch(address, processes, process)


def _parse_number(name, value, address):
    try:
        return int(value)
    except (TypeError, ValueError):
        fault = "is missing" if value in (None, "") else f"got {value!r}"
        raise ValueError(
            f"--distributed={address} needs --processes=N, the same everywhere, and --process=i, from 0 to N − 1: "
            f"--{name} {fault}{_variables()}"
        ) from None


def _variables():
    return f" (the same by environment variables: {', '.join(VARIABLES.values())})"


def start(
    launch: Launch | None,
    wait_seconds: int = 300,
    heartbeat_seconds: int = 60,
    workdir: Path | None = None,
    facts: dict[str, Any] | None = None,
    claim: Callable[[], str] = lambda: "",
) -> None:
    """Connects the processes that `launch` asks for; without one, does nothing.

    Args:
      wait_seconds: How long to wait for the other processes.
      heartbeat_seconds: A connected process that is silent for this long counts as lost, and the others end.
      workdir, facts, claim: What all must share, as in `roll_call`.

    Raises:
      ValueError: if the processes don't find one another or don't belong together, or the environment names none.
    """
    if launch is None:
        return
    address, processes, process, devices = _detect_launch(wait_seconds) if launch.address == AUTO else (*launch, None)
    print(
        f"waiting for {processes} processes at {address}, at most {wait_seconds} s (later, one that is silent for "
        f"{heartbeat_seconds} s is taken for dead)",
        flush=True,
    )
    roll_call(address, processes, process, wait_seconds, workdir, facts, claim)
    # This service would install a C++ handler of SIGTERM, which swallows the signal until the run installs its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
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


def check_devices() -> None:
    """Checks that all processes have the same devices, prints how many there are, and silences all but process 0.

    Raises:
      ValueError: if a process has other devices than process 0.
    """
    if not is_multiprocess():
        return
    kinds = [[] for _ in range(coordination.num_processes)]
    for device in jax.devices():
        kinds[device.process_index].append(device.device_kind)
    found = [f"{len(one)} × {', '.join(sorted(set(one)))}" for one in kinds]
    if len(set(found)) > 1:
        lines = "\n  ".join(f"process {process}: {devices}" for process, devices in enumerate(found))
        raise ValueError(f"the processes have different devices; use hosts with the same ones:\n  {lines}")
    if coordination.process_id:
        # From here on process 0 prints; the others print errors alone.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    print(f"{len(kinds)} processes, {jax.device_count()} devices: {found[0]} each", flush=True)


def _detect_launch(seconds):
    address, processes, process, devices = detect_cluster(seconds)
    if None in (address, processes, process):
        raise ValueError(
            f"--distributed=auto: the environment is none of Cloud TPU, GKE, SLURM and MPI; use "
            f"--distributed=HOST:PORT --processes=N --process=i{_variables()}"
        )
    return address, processes, process, devices


def barrier(name: str, seconds: int = 600) -> None:
    """Waits until all processes have called this; `name` appears in error messages."""
    if is_multiprocess():
        coordination.client.wait_at_barrier(f"nft_jax/{next(_barriers)}/{name}", seconds * 1000)


def on_process_0(act: Callable[[], Any], name: str, seconds: int = 600) -> None:
    """Calls `act` in process 0; the others wait until it is done.

    Raises:
      ValueError, OSError: in every process, if `act` raises one.
    """
    fault, key = None, f"nft_jax/{next(_barriers)}/{name}"
    if not coordination.process_id:
        try:
            act()
        except (ValueError, OSError) as error:
            fault = error
        if is_multiprocess():
            coordination.client.key_value_set(key, json_text(fault and [isinstance(fault, OSError), str(fault)]))
    elif is_multiprocess():
        saved = json.loads(coordination.client.blocking_key_value_get(key, seconds * 1000))
        fault = saved and (OSError if saved[0] else ValueError)(saved[1])
    if fault is not None:
        raise fault


def any_process(value: bool) -> bool:
    """Returns whether `value` is true in any process; all call it at the same place, while no program runs."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value)))) if is_multiprocess() else value


def gather(tree: Any) -> Any:
    """Returns arrays, of which each process may hold only a part, complete on the host; all processes call it."""
    return multihost_utils.process_allgather(tree, tiled=True) if is_multiprocess() else jax.device_get(tree)


def compile_collectives(step: jax.stages.Compiled | None = None) -> None:
    """Compiles before the first step the collectives that stopping, saving and logging groups after a step need."""
    if is_multiprocess():
        any_process(False)
        multihost_utils.sync_global_devices("compile")
    if is_multiprocess() and step is not None:
        logged = [(record.last, record.length_RQK) for record in (step.out_info[1], step.output_shardings[1])]
        gather(jax.tree.map(lambda x, sharding: jnp.zeros(x.shape, x.dtype, device=sharding), *logged))


def place(tree: Any, shardings: Any) -> Any:
    """Puts host arrays, equal in all processes, on the devices by `shardings`; each process places its own part."""
    if not is_multiprocess():
        return jax.device_put(tree, shardings)

    def put(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)


def check_mesh(mesh: Mesh) -> None:
    """Checks that the mesh has the devices of all processes.

    Raises:
      ValueError: if it leaves some out.
    """
    if is_multiprocess() and mesh.size != jax.device_count():
        raise ValueError(
            f"the mesh {dict(mesh.shape)} takes {mesh.size} of {jax.device_count()} devices; with several processes it "
            f"must take all, so that each has its part: use config.mesh.data=-1"
        )
