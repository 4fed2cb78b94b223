"""Before JAX connects the processes: all come to process 0's address, and each hears who is missing."""

import contextlib
import json
import socket
import time

# Between two tries to reach process 0, whose program may not have begun.
_RETRY_SECONDS = 0.2
_LOOPBACK = ("localhost", "127.0.0.1")


def roll_call(address: str, processes: int, process: int, seconds: float) -> None:
    """Returns when all have come to `address`, HOST:PORT of process 0, which is free again then.

    JAX's own client ends the process when not all come, and can't say who did not.

    Raises:
      ValueError: with the processes that are missing after so many seconds, or came twice.
    """
    if processes == 1:
        return
    deadline = time.monotonic() + seconds
    fault = _call(address, processes, deadline) if process == 0 else _answer(address, process, deadline)
    if fault is None:
        fault = f"process 0 is not to be reached from process {process} on {socket.gethostname()}"
    if fault:
        raise ValueError(
            f"within {seconds:g} s not all {processes} processes came to {address}: {fault}; are all started, with the "
            f"same address and number of processes, and does nothing keep them from reaching that port?"
        )


def split(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    return split(address)[0] in _LOOPBACK


def _call(address, processes, deadline):
    """Process 0's part: hears the others, and tells them what is wrong; nothing: ""."""
    host, port = split(address)
    came, twice, callers = {}, [], []
    try:
        listener = _listener(host, port, processes)
    except OSError as error:
        return f"port {port} can't be opened on {socket.gethostname()} ({error}): take another one"
    with listener, contextlib.ExitStack() as stack:
        while len(came) < processes - 1 and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                caller = stack.enter_context(listener.accept()[0])
                caller.settimeout(5)
                # Whoever else finds the port says nothing of the kind.
                with contextlib.suppress(OSError, ValueError):
                    number, name = json.loads(caller.makefile().readline())
                    if number in came:
                        twice.append(f"process {number} came from {came[number]} and from {name}")
                    came[number] = name
                    callers.append(caller)
        missing = [str(number) for number in range(1, processes) if number not in came]
        fault = "; ".join(twice + [f"missing: process {', '.join(missing)}"] * bool(missing))
        for caller in callers:
            with contextlib.suppress(OSError):
                caller.sendall(json.dumps(fault).encode() + b"\n")
    return fault


def _listener(host, port, processes):
    if host in _LOOPBACK:
        return socket.create_server(("127.0.0.1", port), backlog=processes)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=processes, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=processes)


def _answer(address, process, deadline):
    """Another process' part; None where process 0 can't be reached."""
    told = json.dumps((process, socket.gethostname())).encode() + b"\n"
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError, ValueError), socket.create_connection(split(address), timeout=left) as call:
            call.sendall(told)
            # Process 0 waits until a deadline of its own, and then says so.
            call.settimeout(left + 10)
            return json.loads(call.makefile().readline())
        time.sleep(_RETRY_SECONDS)
    return None
