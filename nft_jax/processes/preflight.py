"""Before anything is compiled: do the processes of a run belong together, and see the same folder and time?"""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from nft_jax.compat import coordination
from nft_jax.config import Config, resolved
from nft_jax.processes import ending
from nft_jax.run import remote_workdir
from nft_jax.run.workdir import versions

PACKAGES = ("nft_jax", "jax", "jaxlib")
MOST_CLOCK_SECONDS = 5.0
# A network folder may show late what another host wrote.
FOLDER_SECONDS = 15.0

Told = dict[str, Any]


def preflight(config: Config, workdir: Path, seconds: int = 120) -> None:
    """Tells the other processes of this one, hears of them, and prints what there is, on one line.

    Each has `seconds` to answer, and as many again to start its devices. Every process comes to the same verdict.

    Raises:
      ValueError: a line for each process that differs from process 0, can't work or did not answer.
    """
    if not ending.is_multiprocess():
        return
    workdir = remote_workdir.home(workdir)
    with _nonce(workdir, seconds) as nonce:
        told = {"host": socket.gethostname(), "folder": _folder_fault(workdir, nonce), "clock": _clock(seconds)}
        told |= {"versions": _only(versions(), *PACKAGES), "sources": sources_digest()}
        told |= {"config": resolved(config)}
        heard = _exchange("host", told, seconds)
    _refuse(heard, _host_faults, seconds)
    own = jax.local_devices()
    there = _exchange("devices", {"count": len(own), "kind": own[0].device_kind, **_only(told, "host")}, seconds)
    _refuse(there, _device_faults, seconds)
    if jax.process_index():
        # From here on the one that writes the files prints, and the others say errors alone.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    hosts, count = len({one["host"] for one in there.values()}), sum(one["count"] for one in there.values())
    print(
        f"{len(there)} processes on {hosts} host{'s' * (hosts > 1)}, {count} devices ({there[0]['kind']})", flush=True
    )


def sources_digest() -> str:
    """16 hexadecimal digits that depend on every source file of this package."""
    folder, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _only(told, *names):
    return {name: told[name] for name in names}


@contextlib.contextmanager
def _nonce(workdir: Path, seconds: int) -> Iterator[str]:
    """A word that process 0 left in a file of the workdir, to tell whether others see the same; "" if it could not."""
    if coordination.process_id:
        yield _get("nonce", seconds) or ""
        return
    nonce = secrets.token_hex(8)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _path(workdir, nonce).write_text(nonce)
    except OSError:
        nonce = ""
    coordination.client.key_value_set("nft_jax/nonce", nonce)
    try:
        yield nonce
    finally:
        if nonce:
            _path(workdir, nonce).unlink(missing_ok=True)


def _path(workdir, name):
    return workdir / f".preflight-{name}"


def _folder_fault(workdir: Path, nonce: str) -> str:
    """What is wrong with the workdir as this process sees it; nothing: ""."""
    deadline = time.monotonic() + FOLDER_SECONDS
    while nonce and not _path(workdir, nonce).exists():
        if time.monotonic() > deadline:
            return (
                f"--workdir={workdir} is not the folder that process 0 has: what that wrote there is not to be seen; "
                f"use a folder that all hosts share"
            )
        time.sleep(0.2)
    try:
        own = _path(workdir, f"{nonce}-{coordination.process_id}")
        own.write_text(nonce)
        own.unlink()
    except OSError as error:
        return f"--workdir={workdir} can't be written: {error.strerror or error}"
    return ""


def _clock(seconds: int) -> float | None:
    """The time by this host's clock, at a moment that is the same for all."""
    try:
        coordination.client.wait_at_barrier("nft_jax/clock", seconds * 1000)
    except jax.errors.JaxRuntimeError:
        return None
    return time.time()


def _get(key: str, seconds: float) -> str | None:
    """A value of the coordination service, or None when nobody has set it in so many seconds."""
    try:
        return coordination.client.blocking_key_value_get(f"nft_jax/{key}", max(1, int(seconds * 1000)))
    except jax.errors.JaxRuntimeError:
        return None


def _exchange(what: str, told: Told, seconds: int) -> dict[int, Told | None]:
    """What each process tells; None: it did not answer."""
    coordination.client.key_value_set(f"nft_jax/{what}/{coordination.process_id}", json.dumps(told))
    deadline, heard = time.monotonic() + seconds, {}
    for process in range(coordination.num_processes):
        answer = _get(f"{what}/{process}", deadline - time.monotonic())
        heard[process] = None if answer is None else json.loads(answer)
    return heard


def _refuse(heard: dict[int, Told | None], faults: Callable, seconds: int) -> None:
    lines = [
        f"process {process}" + (f" on {told['host']}: {fault}" if told else f" did not answer in {seconds} s")
        for process, told in heard.items()
        for fault in (faults(told, heard[0]) if told and heard[0] else [""] * (told is None))
    ]
    if lines:
        raise ValueError("the processes can't run together:\n  " + "\n  ".join(lines))


def _host_faults(told: Told, first: Told) -> list[str]:
    """What is wrong with a host, beside process 0's."""
    faults = [told["folder"]] * bool(told["folder"])
    faults += [
        f"{name} {told['versions'][name]}, process 0 has {version}; install the same on all hosts"
        for name, version in first["versions"].items()
        if told["versions"][name] != version
    ]
    if told["sources"] != first["sources"]:
        faults.append(
            f"its nft_jax has sources of digest {told['sources']}, process 0 {first['sources']}; install the same on "
            f"all hosts"
        )
    faults += [
        f"config.{name}={value!r}, process 0 has {other!r}; give all the same command"
        for name, value, other in _differences(told["config"], first["config"])
    ]
    ahead = 0.0 if None in (told["clock"], first["clock"]) else told["clock"] - first["clock"]
    if abs(ahead) > MOST_CLOCK_SECONDS:
        faults.append(
            f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} process 0's; at most "
            f"{MOST_CLOCK_SECONDS:.0f} s are allowed (files are judged by their time): set it by NTP"
        )
    return faults


def _differences(one: dict, other: dict, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, by the names of the command line, with both values."""
    for name in one | other:
        mine, its = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(its, dict):
            yield from _differences(mine, its, f"{path}{name}.")
        elif mine != its:
            yield f"{path}{name}", mine, its


def _device_faults(told: Told, first: Told) -> list[str]:
    return [
        f"its devices' {name} is {told[name]}, process 0 has {first[name]}; use hosts that are alike"
        for name in ("count", "kind")
        if told[name] != first[name]
    ]
