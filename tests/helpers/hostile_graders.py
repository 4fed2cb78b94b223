"""Graders that misbehave when the response says so; every other response is graded by equality."""

import os
import signal
import sys
import threading
import time

_KEPT = []


def _hang(response: str) -> bool:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def _spawn_and_exit(response: str) -> bool:
    """Starts a process that holds the worker's pipes open, and crashes."""
    if os.fork() == 0:
        time.sleep(3600)
    os._exit(1)


def _start_process(response: str) -> tuple[str, str]:
    """Starts a process that sleeps for an hour, and returns its id."""
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
    return "correct", str(pid)


def _keep_memory(response: str) -> bool:
    """Fills the memory in small pieces that stay referenced, so that no other item fits."""
    while True:
        _KEPT.append(bytearray(1 << 20))


def _leak(response: str) -> bool:
    """Keeps 20 MiB more."""
    _KEPT.append(bytearray(20 << 20))
    return True


def _print(response: str) -> bool:
    print("x" * 1_000_000)
    sys.stdout.flush()
    os.write(1, b"\x00\x00\x00\x02{}")
    return True


def _leave_thread(response: str) -> bool:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return True


def _close_pipes(response: str) -> bool:
    os.closerange(3, 256)
    return True


def _list_modules(response: str) -> tuple[str, str]:
    """Returns which of the modules that a worker must not import it has imported."""
    roots = {name.split(".")[0] for name in sys.modules}
    return "correct", " ".join(sorted(roots & {"jax", "jaxlib", "nft_jax", "numpy", "_nft_jax"}))


def _interrupt(response: str) -> None:
    # A process in the background ignores it from the start, and so do all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    time.sleep(3600)


def _recurse(response: str) -> bool:
    return _recurse(response)


_DEEDS = {
    "hang": _hang,
    "sleep": lambda response: time.sleep(3600),
    "crash": lambda response: os._exit(3),
    "segfault": lambda response: os.kill(os.getpid(), signal.SIGSEGV),
    "spawn": _spawn_and_exit,
    "child": _start_process,
    "close": _close_pipes,
    "exit": lambda response: sys.exit(0),
    "raise": lambda response: 1 / 0,
    "interrupt": _interrupt,
    "recurse": _recurse,
    "allocate": lambda response: bool(bytearray(1 << 30)),  # never touched: without a limit it costs nothing
    "keep": _keep_memory,
    "leak": _leak,
    "print": _print,
    "input": lambda response: sys.stdin.read() == "" and os.read(0, 1) == b"",
    "thread": _leave_thread,
    "number": lambda response: 1,
    "status": lambda response: "splendid",
    "long": lambda response: ("incorrect", "y" * 10_000_000),
    "loaded": _list_modules,
    "environment": lambda response: ("correct", " ".join(os.environ)),
    "brief": lambda response: time.sleep(0.003) or True,
    "slow": lambda response: time.sleep(0.2) or True,
}


def misbehave(response: str, answer: str):
    """Does the deed that the response names, or compares."""
    return _DEEDS[response](response) if response in _DEEDS else response == answer


not_a_function = 5
