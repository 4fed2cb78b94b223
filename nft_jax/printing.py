"""What reaches a terminal or a picture: text from outside can't move its cursor, hide text or turn its direction.

Problems, answers, names of files and errors of graders may hold escape sequences. All that a command prints goes
through one door, `show_control_characters`, that writes such characters as their escapes, `\\x1b`.
"""

import logging
import re
import shutil
import sys
import time
from typing import Any, TextIO

# The control and format characters of Unicode (categories Cc, Cf), separators of lines and paragraphs (Zl, Zp) and
# halves of surrogate pairs (Cs), but for the line feed and the tab: a terminal obeys them, or shows nothing.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Returns a text with its control characters as escapes, such as `\x1b` and `\u202e`; lines and tabs stay."""
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class VisibleStream:
    """A stream that writes control characters as their escapes; all else is the stream's own.

    Attributes:
      unchecked: The stream.
    """

    def __init__(self, stream: TextIO):
        self.unchecked = stream

    def write(self, text: str) -> int:
        """Writes a text, visibly."""
        self.unchecked.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes texts, visibly."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unchecked, name)


def show_control_characters() -> None:
    """Lets this process print visible text alone, whoever prints; it may be called again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, VisibleStream):
            if hasattr(stream, "reconfigure"):  # what its encoding lacks, it would refuse
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, VisibleStream(stream))
            # Handlers that an import made have the stream itself; absl replaces them only where it knows their stream.
            for handler in _log_handlers():
                if any(getattr(handler, "stream", None) is one for one in (stream, getattr(sys, f"__{name}__"))):
                    handler.setStream(getattr(sys, name))


def _log_handlers() -> list[logging.Handler]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return [handler for logger in loggers for handler in getattr(logger, "handlers", ())]


def terminal_width() -> int | None:
    """Returns the columns of the terminal that stdout is; None where it is a file or a pipe."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None


def format_time(seconds: float) -> str:
    """Returns a duration with two or three digits: 45 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class ProgressLine:
    """Says how far something is that may take minutes, and the time left.

    A terminal shows one line, in place; a file gets one now and then, and none of what is quick.

    Args:
      name: What is being done.
      total: How much there is to do.
      unit: Of what.
      every: Seconds from one line of a file to the next.
    """

    def __init__(self, name: str, total: int, unit: str, every: float = 30.0):
        self.name, self.total, self.unit, self.every = name, total, unit, every
        self.began = self.printed = time.perf_counter()

    def show(self, done: int) -> None:
        """Prints the line, if it is time."""
        now, last = time.perf_counter(), done >= self.total
        if not sys.stdout.isatty() and (last or now - self.printed < self.every):
            return
        left = "" if last or not done else f", {format_time((now - self.began) / done * (self.total - done))} left"
        spent = format_time(now - self.began)
        print_progress(f"  {self.name}: {done:,} of {self.total:,} {self.unit}, {spent}{left}", last)
        self.printed = now


def print_progress(line: str, last: bool) -> None:
    """Prints a line of progress: a terminal shows it in place of the one before, a file keeps them all."""
    if not sys.stdout.isatty():
        print(line, flush=True)
        return
    out = getattr(sys.stdout, "unchecked", sys.stdout)
    out.write(f"\r{visible(line)}\x1b[K" + "\n" * last)
    out.flush()
