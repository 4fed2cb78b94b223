"""The metrics of a run for TensorBoard, under their names in `metrics.jsonl`.

tensorboard --logdir=runs
"""

import contextlib
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import jax
from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter, masked_crc32c

_NAME = "events.out.tfevents."


class TensorBoard:
    """Writes an event file; only process 0 does.

    Each `add` is on the disk when it returns. A write that fails prints one message on stderr, and the run goes on
    without TensorBoard; the numbers are in `metrics.jsonl` too. It uses the records of tensorboardX but not its
    SummaryWriter, which writes in a thread: when a full disk ends that thread, the run goes on in silence until it
    hangs on the thread's full queue.

    TensorBoard reads the files in the order of their names, and drops what it has of the step that a file begins with
    and of later ones. The file that a resumed run begins comes after all others, whatever the clock says, and begins
    with the first step that the others lack: a run that was killed, or went on without TensorBoard, may have left some.

    Args:
      path: The folder of event files.
      resume_from: The step from which the run resumed; TensorBoard drops what it has of later steps. 0: of all steps.
      kept: By prefix, the lines of steps up to that one, with what was given to `add`.
    """

    def __init__(self, path: Path, resume_from: int, kept: Mapping[str, Sequence[dict]] | None = None):
        self._path = path
        self._file: RecordWriter | None = None
        if jax.process_index():
            return
        kept = kept if kept and resume_from else {}
        first = self._find_first_lacking(kept, resume_from + 1) if resume_from else 0
        self._open(
            Event(file_version="brain.Event:2"), Event(step=first, session_log=SessionLog(status=SessionLog.START))
        )
        for prefix, rows in kept.items():
            for row in rows:
                if row["step"] >= first:
                    self.add(row["step"], row, prefix)

    def add(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Adds each number of `values` to its curve: "name", or "prefix/name".

        Names are those of `numbers`.
        """
        curves = [Summary.Value(tag=name, simple_value=x) for name, x in numbers(prefix, values).items()]
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
            self._file = RecordWriter(str(self._path / self._next_name()))
        except OSError as error:
            self._give_up(error)
        self._write(*events)

    def _next_name(self) -> str:
        """Returns a name that comes after those of all files that are there: the time, or a later one."""
        last = max((file.name for file in self._files()), default="")
        stamp = last.removeprefix(_NAME)
        later = float(stamp) + 1e-3 if stamp.replace(".", "", 1).isdecimal() and stamp.isascii() else 0.0
        name = f"{_NAME}{max(time.time(), later):.6f}"
        return name if name > last else f"{last}.1"

    def _files(self) -> list[Path]:
        return sorted(self._path.glob("*tfevents*")) if self._path.is_dir() else []

    def _find_first_lacking(self, kept: Mapping[str, Sequence[dict]], otherwise: int) -> int:
        """Returns the first step of `kept` that the files do not show exactly once; `otherwise` for none."""
        shown: dict[str, Counter[int]] = {prefix: Counter() for prefix in kept}
        for file in self._files():
            for event in _read_events(file):
                if event.HasField("session_log"):
                    shown = {p: Counter({s: n for s, n in c.items() if s < event.step}) for p, c in shown.items()}
                parts = {value.tag.partition("/")[0] for value in event.summary.value}
                for prefix in shown:
                    shown[prefix][event.step] += prefix in parts if prefix else bool(parts - shown.keys())
        steps = {prefix: {row["step"] for row in rows} for prefix, rows in kept.items()}
        lacking = [step for prefix in kept for step in steps[prefix] if shown[prefix][step] != 1]
        # Of the last step, a part may be taken again.
        last = otherwise - 1
        lacking += [last for prefix in kept if shown[prefix][last] and last not in steps[prefix]]
        return min([otherwise, *lacking])

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


def _read_events(file: Path) -> Iterator[Event]:
    """Yields the events of a file up to its end, or to a record that is damaged or half-written."""
    content, place = file.read_bytes(), 0
    while place + 12 <= len(content):
        length, check = struct.unpack_from("<QI", content, place)
        if check != masked_crc32c(content[place : place + 8]) or place + 16 + length > len(content):
            return
        try:
            yield Event.FromString(content[place + 12 : place + 12 + length])
        except DecodeError:
            return
        place += 16 + length


def numbers(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a step by the names of their curves: "name", or "prefix/name".

    {"verdicts": {"error": 3}, "rate_histogram": [5, 6]} gives verdicts/error, rate_histogram/0 and rate_histogram/1.
    "step", None, booleans and text are left out.
    """
    return dict(_flatten(prefix, {name: value for name, value in values.items() if name != "step"}))


def _flatten(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields the numbers in a nested value with their names."""
    if isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flatten(f"{name}/{key}" if name else str(key), inner)
    elif isinstance(value, Real) and not isinstance(value, bool):
        yield name, float(value)
