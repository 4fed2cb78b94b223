"""What reaches a terminal or a picture: text alone."""

import io
import logging
import sys
import unicodedata

import matplotlib.pyplot as plt
import pytest

from nft_jax.printing import ProgressLine, VisibleStream, format_time, print_progress, show_control_characters, visible
from nft_jax.report.curves import save_figure


def test_visible_escapes_exactly_what_a_terminal_obeys_or_hides():
    kept = "\n\t"
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        obeyed = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and character not in kept
        shown = visible(character)
        assert (shown != character) == obeyed or _is_newer(code), hex(code)
        assert not obeyed or shown.isascii()


def _is_newer(code: int) -> bool:
    """Whether Unicode's tables of some Python versions have the character otherwise."""
    return unicodedata.category(chr(code)) == "Cn" or 0x13430 <= code <= 0x1343F


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J\tb\n", "a\\x1b[2J\tb\n"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("1\r2", "1\\r2"),
        ("\u2028\u200b", "\\u2028\\u200b"),
        ("naïve 数学 🙂 עברית", "naïve 数学 🙂 עברית"),
        ("\ud800", "\\ud800"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


def test_show_control_characters_is_the_door_of_all_that_prints(monkeypatch):
    streams = {name: io.StringIO() for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    early = logging.StreamHandler()  # as libraries make one when they are imported
    monkeypatch.setattr(logging.getLogger("early"), "handlers", [early])
    show_control_characters()
    show_control_characters()
    logging.getLogger("early").warning("\x1b[2J")
    assert sys.stdout.unchecked is streams["stdout"]
    print("\x1b[31mred")
    print("\x1b[31mred", file=sys.stderr)
    sys.stderr.writelines(["\x07", "\n"])
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError:
        sys.excepthook(*sys.exc_info())
    written = "".join(stream.getvalue() for stream in streams.values())
    assert "\x1b" not in written and "\x07" not in written
    assert "\n\\x1b[2J\n" in f"\n{written}"
    assert written.startswith("\\x1b[31mred\n") and "ValueError: \\x1b]0;title\\x07" in written


def test_show_control_characters_prints_what_the_encoding_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    show_control_characters()
    print("\u2502 1 ± 2 \u2717", flush=True)
    assert written.getvalue() == rb"\u2502 1 \xb1 2 \u2717" + b"\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_print_progress_rewrites_a_line_of_a_terminal_alone(monkeypatch):
    for stream, written in ((Terminal(), "\r1\\x1b\x1b[K\r2\x1b[K\n"), (io.StringIO(), "1\\x1b\n2\n")):
        monkeypatch.setattr(sys, "stdout", VisibleStream(stream))
        print_progress("1\x1b", last=False)
        print_progress("2", last=True)
        assert stream.getvalue() == written


def test_progress_line_is_one_line_of_a_terminal_and_few_of_a_file(monkeypatch):
    for stream, every, count in ((Terminal(), 0.0, 4), (io.StringIO(), 0.0, 3), (io.StringIO(), 1e9, 0)):
        monkeypatch.setattr(sys, "stdout", VisibleStream(stream))
        progress = ProgressLine("base\x1b", 1000, "problems", every)
        for done in (100, 200, 900, 1000):
            progress.show(done)
        written = stream.getvalue()
        assert written.count("of 1,000 problems") == count and written.count("left") == min(count, 3)
        assert ("\r" in written) == (count == 4) and "base\x1b" not in written
        assert written == "" or written.endswith("\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (7200, "2.0 h")])
def test_format_time(seconds, text):
    assert format_time(seconds) == text


def test_save_figure_writes_visible_texts(tmp_path):
    figure, axes = plt.subplots()
    axes.set_title("\x1b[31m\u202eloss")
    axes.plot([1, 2], label="\x07")
    axes.legend()
    save_figure(figure, tmp_path / "a.png")
    assert axes.get_title() == "\\x1b[31m\\u202eloss"
    assert axes.get_legend().get_texts()[0].get_text() == "\\x07"
