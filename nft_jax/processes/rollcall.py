"""Checks, before JAX connects the processes, that all have come, agree on their facts, and share the run's folder.

Every process but 0 connects to the address of process 0, sends its report, and receives the fault. JAX's own client
aborts the process when some don't arrive in time, and can't say which.
"""

import contextlib
import hashlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

_RETRY_SECONDS = 0.2  # between two tries to reach process 0, whose program may not run yet
_FOLDER_SECONDS = 15.0  # a network folder may show a file of another host this late
_LOOPBACK = ("localhost", "127.0.0.1")

# What a process sends: the fault of its folder ("": none), and its facts.
_Report = tuple[str, dict[str, Any]]


class _Caller(NamedTuple):
    process: int
    host: str
    connection: socket.socket
    lines: TextIO


def roll_call(
    address: str,
    processes: int,
    process: int,
    seconds: float,
    workdir: Path | None = None,
    facts: dict[str, Any] | None = None,
    claim: Callable[[], str] = lambda: "",
) -> None:
    """Waits until all processes have come to `address` (HOST:PORT of process 0) and agree; then frees the port.

    Args:
      seconds: How long to wait for all to come.
      workdir: The folder that all must see and write (`epath.Path` in a bucket).
      facts: What must be equal in all processes, such as settings and versions: nested dicts of JSON values.
      claim: Process 0 takes the folder by it before any process writes there; returns who else has it, "" for nobody.

    Raises:
      ValueError: in every process that came, if another run has the folder, others are missing, two have the same
        number, or one can't use the folder or differs from process 0. The message names them.
    """
    if processes == 1:
        return
    facts = {"nft_jax sources": sources_digest()} | (facts or {})

    def report(token):
        return ("" if workdir is None or token is None else _folder_fault(workdir, token, process)), facts

    if process:
        fault = _attend(address, process, seconds, report)
    else:
        in_use = ""
        with contextlib.suppress(Exception):  # the check of the folder names this process and the error
            in_use = claim()
        with contextlib.nullcontext() if in_use else _shared_token(workdir) as token:
            fault = _preside(address, processes, seconds, token, report, in_use)
    if fault:
        raise ValueError(fault)


def split_address(address: str) -> tuple[str, int]:
    """Splits HOST:PORT; an IPv6 host loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Returns whether only this machine can reach HOST:PORT."""
    return split_address(address)[0] in _LOOPBACK


def sources_digest() -> str:
    """Returns 16 hexadecimal digits that depend on every source file of this package."""
    folder, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _preside(
    address: str,
    processes: int,
    seconds: float,
    token: str | None,
    report: Callable[[str | None], _Report],
    in_use: str,
) -> str:
    """Process 0's part: receives the others' reports, sends each what is wrong ("": nothing) and returns it.

    The folder is left alone where it is `in_use` (who has it): then the token is None.
    """
    deadline, callers = time.monotonic() + seconds, []
    try:
        listener = _open_listener(address, processes)
    except OSError as error:
        return f"{address} can't be opened on {socket.gethostname()} ({error}): use another port"
    with listener, contextlib.ExitStack() as stack:
        while len({one.process for one in callers}) < processes - 1 and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            # Another program that connects to the port sends no such line, and is ignored.
            with contextlib.suppress(OSError, ValueError, TypeError):
                connection = stack.enter_context(listener.accept()[0])
                connection.settimeout(5)
                lines = stack.enter_context(connection.makefile())
                callers.append(_Caller(*json.loads(lines.readline()), connection, lines))
                _send(connection, token)
        fault = _absence_fault(callers, processes)
        if fault:
            fault = (
                f"not all {processes} processes came to {address} within {seconds:g} s: {fault}\nstart all with the "
                f"same address and number of processes, and let no firewall block that port"
            )
        reports = [report(token), *(_receive(one) for one in callers)]
        fault = in_use or fault or _difference_fault(callers, reports)
        for one in callers:
            with contextlib.suppress(OSError):
                _send(one.connection, fault)
    return fault


def _attend(address: str, process: int, seconds: float, report: Callable[[str | None], _Report]) -> str:
    """The part of any other process: sends its report to process 0, and returns what is wrong ("": nothing)."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        with (
            contextlib.suppress(OSError, ValueError),
            socket.create_connection(split_address(address), timeout=left) as connection,
            connection.makefile() as lines,
        ):
            _send(connection, (process, socket.gethostname()))
            _send(connection, report(json.loads(lines.readline())))
            connection.settimeout(left + _FOLDER_SECONDS + 10)  # process 0 answers by its own deadline
            return json.loads(lines.readline())
        time.sleep(_RETRY_SECONDS)
    return (
        f"process 0 can't be reached at {address} from process {process} on {socket.gethostname()} within {seconds:g} "
        f"s; start it, and let no firewall block that port"
    )


def _absence_fault(callers: list[_Caller], processes: int) -> str:
    """Returns which processes are missing or came twice; "" for none."""
    hosts, faults = {0: socket.gethostname()}, []
    for one in callers:
        if one.process in hosts:
            faults.append(f"process {one.process} came from {hosts[one.process]} and from {one.host}")
        hosts[one.process] = one.host
    missing = ", ".join(str(process) for process in range(processes) if process not in hosts)
    return "; ".join(faults + [f"missing: process {missing}"] * bool(missing))


def _difference_fault(callers: list[_Caller], reports: list[_Report | None]) -> str:
    """Returns whose folder has a fault or whose facts differ from those of process 0, the first; "" for none."""
    names, faults = [f"0 on {socket.gethostname()}", *(f"{one.process} on {one.host}" for one in callers)], []
    for name, (folder_fault, facts) in zip(names, (one or ("did not answer", {}) for one in reports), strict=True):
        found = [folder_fault] if folder_fault else []
        if facts:
            differences = _differences(facts, reports[0][1])
            found += [f"{path}={value!r}, process 0 has {other!r}" for path, value, other in differences]
        faults += [f"\n  process {name}: {fault}" for fault in found]
    if not faults:
        return ""
    return (
        f"the processes can't run together:{''.join(faults)}\ngive all the same command, and install the same packages "
        f"on all hosts"
    )


def _differences(one: dict, other: dict, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, value in `one`, value in `other`) of every entry that differs; nested names have dots."""
    for name in one | other:
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from _differences(mine, theirs, f"{path}{name}.")
        elif mine != theirs:
            yield f"{path}{name}", mine, theirs


@contextlib.contextmanager
def _shared_token(workdir: Path | None) -> Iterator[str]:
    """Yields a token that names a file in the workdir meanwhile; "" where process 0 can't write one."""
    token = secrets.token_hex(8) if workdir else ""
    try:
        if token:
            workdir.mkdir(parents=True, exist_ok=True)
            _token_file(workdir, token).write_text(token, encoding="utf-8")
    except Exception:  # for a bucket, its library may raise anything
        token = ""
    try:
        yield token
    finally:
        if token:
            _token_file(workdir, token).unlink(missing_ok=True)


def _token_file(workdir: Path, token: str) -> Path:
    return workdir / f".rollcall-{token}"


def _folder_fault(workdir: Path, token: str, process: int) -> str:
    """Returns what is wrong with the workdir as this process sees it; "" for nothing."""
    deadline = time.monotonic() + _FOLDER_SECONDS
    while token and not _token_file(workdir, token).exists():
        if time.monotonic() > deadline:
            return f"--workdir={workdir} is not the folder that process 0 has; use one that all hosts share"
        time.sleep(0.2)
    try:
        own = _token_file(workdir, f"{token}-{process}")
        own.write_text(token, encoding="utf-8")
        own.unlink()
    except Exception as error:  # for a bucket, its library may raise anything
        return f"--workdir={workdir} can't be written: {getattr(error, 'strerror', None) or error}"
    return ""


def _send(connection: socket.socket, value: Any) -> None:
    connection.sendall(json.dumps(value).encode() + b"\n")


def _receive(caller: _Caller) -> _Report | None:
    caller.connection.settimeout(_FOLDER_SECONDS + 10)
    with contextlib.suppress(OSError, ValueError):
        return json.loads(caller.lines.readline())
    return None


def _open_listener(address: str, processes: int) -> socket.socket:
    """Listens on the loopback only if that is the address, else on all interfaces."""
    port, local = split_address(address)[1], is_loopback(address)
    dual = not local and socket.has_dualstack_ipv6()
    family, host = socket.AF_INET6 if dual else socket.AF_INET, "127.0.0.1" if local else ""
    return socket.create_server((host, port), family=family, backlog=processes, dualstack_ipv6=dual)
