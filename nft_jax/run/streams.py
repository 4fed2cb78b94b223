"""Standard output and error that outlive their reader: a run does not end because nobody reads what it prints."""

import errno
import os
import sys
from typing import Any, TextIO

# A pipe without a reader; a terminal that was closed; a descriptor that was.
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


class LastingStream:
    """A stream that drops what is written once its reader is gone; all else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes as the stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flushes as the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        """Lets the stream's descriptor lead to nowhere, so that what it still holds can leave it, too."""
        if error.errno not in _GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self._stream.fileno())
        finally:
            os.close(nowhere)
        if self._stream is sys.__stdout__:
            print("nobody reads the standard output any more; the program goes on", file=sys.stderr, flush=True)


def outlive_readers() -> None:
    """Makes the standard streams of this process lasting ones, also those that are closed already."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if not isinstance(stream, LastingStream):
            setattr(sys, name, LastingStream(stream))
