"""The metrics of a run for TensorBoard, under their names in `metrics.jsonl`.

tensorboard --logdir=runs
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter


class TensorBoard:
    """Writes an event file; only process 0 does.

    Each `add` is on the disk when it returns. A write that fails prints one message on stderr, and the run goes on
    without TensorBoard; the numbers are in `metrics.jsonl` too. It uses the records of tensorboardX but not its
    SummaryWriter, which writes in a thread: when a full disk ends that thread, the run goes on in silence until it
    hangs on the thread's full queue.

    Args:
      path: The folder of event files.
      resume_from: The step from which the run resumed; TensorBoard drops what it has of later steps. 0: of all steps.
    """

    def __init__(self, path: Path, resume_from: int):
        self._path = path
        self._file: RecordWriter | None = None
        if jax.process_index() == 0:
            replaced = resume_from + 1 if resume_from else 0
            self._open(
                Event(file_version="brain.Event:2"),
                Event(step=replaced, session_log=SessionLog(status=SessionLog.START)),
            )

    def add(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Adds each number of `values` to its curve: "name", or "prefix/name".

        {"verdicts": {"error": 3}, "rate_histogram": [5, 6]} goes to verdicts/error, rate_histogram/0, rate_histogram/1.
        "step", None, booleans and text are left out.
        """
        curves = [Summary.Value(tag=name, simple_value=x) for name, x in _numbers(prefix, values) if name != "step"]
        self._write(Event(step=step, summary=Summary(value=curves)))

    def close(self) -> None:
        """Closes the file; later calls of `add` write nothing."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # it is flushed already, and a full disk was reported
                file.close()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _open(self, *events: Event) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads a run's files in the order of their names.
            self._file = RecordWriter(str(self._path / f"events.out.tfevents.{time.time():.6f}"))
        except OSError as error:
            self._give_up(error)
        self._write(*events)

    def _write(self, *events: Event) -> None:
        if self._file is None:
            return
        try:
            for event in events:
                event.wall_time = time.time()
                self._file.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            # Nothing after a half-written record could be read.
            self.close()
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(f"{self._path} can't be written: {error}; the run goes on without TensorBoard", file=sys.stderr)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields the numbers in a nested value with their names."""
    if isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _numbers(f"{name}/{key}" if name else str(key), inner)
    elif isinstance(value, Real) and not isinstance(value, bool):
        yield name, float(value)
