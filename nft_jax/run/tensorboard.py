"""The metrics of a run for TensorBoard, under the names that they have in `metrics.jsonl`.

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
    """Writes an event file into the folder `path`; only process 0 writes.

    A run that was resumed from step `resume_from` replaces what is there of later steps (0: what is there at all).

    The records are tensorboardX's, its SummaryWriter is not used: that one writes in a thread, and when the thread dies
    of a full disk, the run goes on in silence until it hangs on the thread's full queue. Here each `add` is on the disk
    when it returns. A write that fails is said once, on stderr, and the run goes on without TensorBoard: the numbers
    are in `metrics.jsonl` all the same.
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
        "step" is left out, as are None, truth values and text.
        """
        curves = [Summary.Value(tag=name, simple_value=x) for name, x in _numbers(prefix, values) if name != "step"]
        self._write(Event(step=step, summary=Summary(value=curves)))

    def close(self) -> None:
        """Closes the file; what is added later is not written."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # it is flushed already; a full disk has been said
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
            # What is half written ends the file: nothing after it could be read.
            self.close()
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(f"{self._path} can't be written: {error}; the run goes on without TensorBoard", file=sys.stderr)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in a value, however deep, with their names."""
    if isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _numbers(f"{name}/{key}" if name else str(key), inner)
    elif isinstance(value, Real) and not isinstance(value, bool):
        yield name, float(value)
