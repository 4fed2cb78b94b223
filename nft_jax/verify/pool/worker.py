"""A grading process: reads chunks of (response, answer) from a pipe and replies to one item at a time.

`process.py` runs this file as `python -I worker.py`. It imports neither jax nor the package root: a process that
imports jax waits for the accelerator that its parent holds. Frames are a 4-byte length and that many bytes of JSON;
JSON, because then nothing in a response can be executed, and because its escapes carry lone surrogates.

    parent → {"grader", "paths", "memory_mib",      worker → {"isolated": bool} or
              "isolation", "correct_from"}                   {"failed": reason, "is_whole": is a sentence}
    parent → [[response, answer], …]                worker → "received", then for each item in order
                                                             [status, extracted, seconds, reason, reward, is_last]

After a reply with `is_last` the worker ends, and the parent replaces it.
"""

import contextlib
import functools
import importlib
import json
import os
import struct
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO

HEADER = struct.Struct("!I")
TEXT_LIMIT = 1000  # characters of `extracted` and `reason` that travel back
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def pack(value: Any) -> bytes:
    """Returns one frame with a value that JSON can hold."""
    payload = json.dumps(value).encode()
    return HEADER.pack(len(payload)) + payload


def _read(source: BinaryIO) -> Any:
    """Returns the value of the next frame; None at the end of the pipe."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    payload = source.read(size)
    return json.loads(payload) if len(payload) == size else None


def _write(fd: int, value: Any) -> None:
    """Writes one whole frame."""
    rest = memoryview(pack(value))
    while rest:
        rest = rest[os.write(fd, rest) :]


def _take_pipes() -> tuple[BinaryIO, int]:
    """Moves the protocol off descriptors 0 and 1, so that a grader that prints or reads input finds only /dev/null."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.dup(1)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    os.close(devnull)
    return source, sink


def _limit_process(memory_mib: int) -> None:
    """Lets the process die with its parent (Linux only), write no core files, and use a limited address space."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    with contextlib.suppress(Exception):  # macOS refuses RLIMIT_AS; the deadline still holds there
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))


def _load_grade_module() -> types.ModuleType:
    """Imports `verify/grade.py` under a synthetic package, so that no `__init__.py` of nft_jax is executed."""
    verify = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name, folder in (("_nft_jax", os.path.dirname(verify)), ("_nft_jax.verify", verify)):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    return importlib.import_module("_nft_jax.verify.grade")


def _memory_mib() -> float:
    """Returns the address space in use, in MiB; 0 where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
    except OSError:
        return 0.0


def _serve(source: BinaryIO, sink: int, grade: Callable[[str, str], Any], memory_mib: int) -> None:
    """Grades chunks until the parent closes the pipe, or until half of the memory that the start left is used up."""
    memory_bound = (_memory_mib() + memory_mib) / 2
    while (chunk := _read(source)) is not None:
        _write(sink, "received")
        for index, (response, answer) in enumerate(chunk):
            status, extracted, seconds, reason, reward = grade(response, answer)
            # What filled the memory may still be referenced: only a new process is safe for the next item. What fills
            # it slowly (caches, a leak) is noticed between chunks.
            is_full = index == len(chunk) - 1 and _memory_mib() > memory_bound
            is_last = reason.startswith("MemoryError") or is_full
            _write(sink, [status, extracted and extracted[:TEXT_LIMIT], seconds, reason[:TEXT_LIMIT], reward, is_last])
            if is_last:
                return


def main() -> None:
    """Loads the grader and grades; ends by `os._exit`, because a grader may have left threads that never end."""
    source, sink = _take_pipes()
    hello = _read(source)
    if hello is None:
        os._exit(0)
    _limit_process(hello["memory_mib"])
    try:
        grading = _load_grade_module()
        # What a grader prints as an error may hold the response.
        importlib.import_module("_nft_jax.printing").show_control_characters()
        sys.path[:0] = [path for path in hello["paths"] if path not in sys.path]
        function = grading.resolve_grader(hello["grader"])
        grading.preload(hello["grader"])
        isolated = importlib.import_module("_nft_jax.verify.pool.isolation").isolate(hello["isolation"])
    except BaseException as error:
        own = importlib.import_module("_nft_jax.own_code")
        _write(sink, {"failed": own.describe_error(error), "is_whole": isinstance(error, ValueError)})
        os._exit(0)
    _write(sink, {"isolated": isolated})
    try:
        grade = functools.partial(grading.grade, grader=function, correct_from=hello["correct_from"])
        _serve(source, sink, grade, hello["memory_mib"])
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
