"""The parent's end of one grading process: start it, talk to it in frames with deadlines, kill it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .worker import HEADER, pack

# A grading process sees these variables only: what a hostile answer makes a grader do finds no tokens and no keys.
# One OpenMP thread each, or every worker would start a pool of threads as large as the machine.
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_FIXED_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_READ_BYTES = 1 << 16
_FRAME_LIMIT = 1 << 20  # a reply is small; a longer one means that something else writes to the pipe


class StartError(RuntimeError):
    """A grading process could not be started, or could not load its grader."""


class Died(Exception):
    """The process ended, or no longer speaks the protocol."""


class Late(Exception):
    """The deadline passed first."""


class GradingProcess:
    """One running grading process; used by one thread, except for `kill`.

    The thread that makes it must live as long as it does: Linux kills it when the *thread* that started it ends.
    Deadlines are instants of `time.monotonic()`. `isolated` says, after `shake_hands`, what `isolation.py` could do.
    """

    def __init__(self, grader: str, paths: Sequence[str], memory_mib: int, isolation: str):
        """Start the process, without waiting for it. Raises StartError if the interpreter cannot be run."""
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-I", str(Path(__file__).with_name("worker.py"))]
        try:
            # A session of its own: Ctrl-C reaches only the parent, and killing the group takes a grader's children too.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment | _FIXED_ENVIRONMENT,
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise StartError(f"cannot start a grading process with {sys.executable!r}: {error}") from error
        self.pid = self._process.pid
        self.isolated = False
        self._hello = pack({"grader": grader, "paths": list(paths), "memory_mib": memory_mib, "isolation": isolation})
        self._received = bytearray()
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self._writable, self._readable = select.poll(), select.poll()
        self._writable.register(self._process.stdin, select.POLLOUT)
        self._readable.register(self._process.stdout, select.POLLIN)

    def shake_hands(self, deadline: float) -> None:
        """Wait until the grader is loaded. Raises StartError that says why it is not, Died if the process is gone."""
        try:
            self._send(self._hello, deadline)
            answer = self.receive(deadline)
        except Late as error:
            raise StartError("the grading process took too long to load its grader") from error
        if not isinstance(answer, dict) or "isolated" not in answer:
            raise StartError(str(answer["failed"]) if isinstance(answer, dict) and "failed" in answer else repr(answer))
        self.isolated = bool(answer["isolated"])

    def deliver(self, items: Sequence[Sequence[str]], deadline: float) -> None:
        """Hand over a chunk and wait until it is received whole. Raises Died or Late."""
        self._send(pack(list(items)), deadline)
        if self.receive(deadline) != "received":
            raise Died("unexpected frame")

    def receive(self, deadline: float) -> Any:
        """The value of the next frame. Raises Died or Late."""
        while (frame := self._next_frame()) is None:
            _wait(self._readable, deadline)
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._process.stdout.fileno(), _READ_BYTES)
                if not data:
                    raise Died("end of pipe")
                self._received += data
        try:
            return json.loads(frame)
        except ValueError as error:
            raise Died("not a frame") from error

    def kill(self) -> None:
        """End the process and all that it started, now, and leave no zombie; harmless when it has already ended."""
        # Only an unreaped process keeps its number from being given to somebody else.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Kill, reap and close the pipes; only for the thread that uses this child."""
        self.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _send(self, frame: bytes, deadline: float) -> None:
        rest = memoryview(frame)
        while rest:
            _wait(self._writable, deadline)
            try:
                rest = rest[os.write(self._process.stdin.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Died(str(error)) from error

    def _next_frame(self) -> bytes | None:
        """Cut the first whole frame off the bytes received, if there is one."""
        if len(self._received) < HEADER.size:
            return None
        (size,) = HEADER.unpack_from(self._received)
        if size > _FRAME_LIMIT:
            raise Died("frame too long")
        end = HEADER.size + size
        if len(self._received) < end:
            return None
        frame = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return frame


def _wait(poll: select.poll, deadline: float) -> None:
    """Wait until the descriptor is ready; looks at least once, so that a reply already there is never Late."""
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise Late
