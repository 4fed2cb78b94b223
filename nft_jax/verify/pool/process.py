"""The parent's end of one grading process: starts it, exchanges frames with it by a deadline, and kills it."""

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

# A grading process sees only these variables: a grader that a hostile answer misuses finds no tokens and no keys.
# One OpenMP thread each, or every worker would start a pool of threads as large as the machine.
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_FIXED_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_READ_BYTES = 1 << 16
_FRAME_LIMIT = 1 << 20  # a reply is small; a longer one means that something else writes to the pipe


class StartError(RuntimeError):
    """A grading process could not be started, or could not load its grader."""


class GraderError(StartError):
    """The grader can't be loaded; the message is a whole sentence about it."""


class ProcessDied(Exception):
    """The process ended, or no longer follows the protocol."""


class DeadlinePassed(Exception):
    """The process did not react before the deadline."""


class GradingProcess:
    """One running grading process; one thread uses it, and any thread may call `kill`.

    The thread that creates it must live as long as it does: Linux kills it when the *thread* that started it ends.
    Deadlines are instants of `time.monotonic()`.

    Attributes:
      isolated: whether the kernel restricts it (`isolation.py`); known after `wait_until_ready`.
    """

    def __init__(self, grader: str, paths: Sequence[str], memory_mib: int, isolation: str, correct_from: float = 0.0):
        """Starts the process, without waiting for it.

        Raises:
          StartError: if the interpreter cannot be run.
        """
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-I", str(Path(__file__).with_name("worker.py"))]
        try:
            # In a new session, Ctrl-C reaches only the parent, and killing the group ends what a grader started too.
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
        hello = {"grader": grader, "paths": list(paths), "memory_mib": memory_mib, "isolation": isolation}
        self._hello = pack(hello | {"correct_from": correct_from})
        self._received = bytearray()
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self._writable, self._readable = select.poll(), select.poll()
        self._writable.register(self._process.stdin, select.POLLOUT)
        self._readable.register(self._process.stdout, select.POLLIN)

    def wait_until_ready(self, deadline: float) -> None:
        """Waits until the grader is loaded.

        Raises:
          StartError: if it cannot be loaded, with the reason, or takes too long.
          ProcessDied: if the process ended.
        """
        try:
            self._send(self._hello, deadline)
            reply = self.receive(deadline)
        except DeadlinePassed as error:
            raise StartError("the grading process took too long to load its grader") from error
        if not isinstance(reply, dict) or not {"isolated", "failed"} & reply.keys():
            raise StartError(repr(reply))
        if "failed" in reply:
            raise (GraderError if reply.get("is_whole") else StartError)(str(reply["failed"]))
        self.isolated = bool(reply["isolated"])

    def send_items(self, items: Sequence[Sequence[str]], deadline: float) -> None:
        """Sends the items of a chunk, and waits until they have arrived.

        Raises:
          ProcessDied, DeadlinePassed: if they do not arrive.
        """
        self._send(pack(list(items)), deadline)
        if self.receive(deadline) != "received":
            raise ProcessDied("it sent an unexpected frame")

    def receive(self, deadline: float) -> Any:
        """Returns the value of the next frame.

        Raises:
          ProcessDied, DeadlinePassed: if no frame arrives.
        """
        while (frame := self._next_frame()) is None:
            _wait(self._readable, deadline)
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._process.stdout.fileno(), _READ_BYTES)
                if not data:
                    raise ProcessDied("its pipe is closed")
                self._received += data
        try:
            return json.loads(frame)
        except ValueError as error:
            raise ProcessDied("it sent a frame that is no JSON") from error

    def kill(self) -> None:
        """Ends the process and all that it started, at once; does nothing if it has ended."""
        # Only a process that has not been reaped keeps its id from being given to another one.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Kills the process, collects its exit status and closes its pipes; only the thread that uses it may call."""
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
                raise ProcessDied(str(error)) from error

    def _next_frame(self) -> bytes | None:
        """Removes the first whole frame from the received bytes and returns it; None if it is not complete yet."""
        if len(self._received) < HEADER.size:
            return None
        (size,) = HEADER.unpack_from(self._received)
        if size > _FRAME_LIMIT:
            raise ProcessDied("it sent a frame that is too long")
        end = HEADER.size + size
        if len(self._received) < end:
            return None
        frame = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return frame


def _wait(poll: select.poll, deadline: float) -> None:
    """Waits until the descriptor is ready; it polls at least once, so a reply that has arrived is always read.

    Raises:
      DeadlinePassed: if it is not ready by then.
    """
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise DeadlinePassed
