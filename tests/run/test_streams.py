"""Standard streams whose reader is gone end no program; errors of a full disk still do."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from nft_jax.run.streams import LastingStream

ROOT = Path(__file__).parents[2]
PRELUDE = """
import os, sys, time
from nft_jax.run.streams import outlive_readers
outlive_readers()
"""


def start(body: str, **streams) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", f"{PRELUDE}\n{body}"], cwd=ROOT, **streams)


def test_outlive_readers_goes_on_when_both_readers_are_gone(tmp_path):
    """As in `python -m nft_jax.train … 2>&1 | head`."""
    body = f"""
for number in range(200):
    print("x" * 5000, flush=number % 2 == 0)
    print("y" * 5000, file=sys.stderr)
    sys.stdout.write("z")
open({str(tmp_path / "end")!r}, "w").close()
"""
    process = start(body, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(30) == 0
    assert (tmp_path / "end").exists()


def test_outlive_readers_says_once_that_nobody_reads():
    process = start(
        "[print('x' * 5000, flush=True) for _ in range(200)]", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    printed = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(30), printed) == (0, "nobody reads the standard output any more; the program goes on\n")


def test_outlive_readers_goes_on_when_the_terminal_is_gone(tmp_path):
    """The end of a terminal is EIO, and not EPIPE."""
    leader, follower = pty.openpty()
    body = f"""
print("begun", flush=True)
while not os.path.exists({str(tmp_path / "gone")!r}):
    time.sleep(0.01)
for stream in (sys.stdout, sys.stderr):
    print("nobody sees this", file=stream, flush=True)
open({str(tmp_path / "end")!r}, "w").close()
"""
    process = start(body, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    assert os.read(leader, 5) == b"begun"
    os.close(leader)
    (tmp_path / "gone").touch()
    assert process.wait(30) == 0
    assert (tmp_path / "end").exists()


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_outlive_readers_of_streams_that_are_closed_from_the_start(tmp_path, closed):
    """A file that is opened later must not take the number of a standard stream."""
    body = f"""
with open({str(tmp_path / "file")!r}, "w") as file:
    assert file.fileno() > 2
    for stream in (sys.stdout, sys.stderr):
        print("lost", file=stream, flush=True)
        assert not stream.isatty()
    os.write(1, b"raw")
"""
    script = tmp_path / "script.py"
    script.write_text(f"{PRELUDE}\n{body}")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(["sh", "-c", f"{sys.executable} {script} {closed}"], env=environment, timeout=30)
    assert ended.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_outlive_readers_leaves_a_full_disk_to_the_run():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        process = start("print('x', flush=True)", stdout=full, stderr=subprocess.PIPE)
        printed = process.stderr.read().decode()
        process.stderr.close()
    assert process.wait(30) != 0
    assert "No space left on device" in printed


def test_outlive_readers_keeps_what_else_a_stream_has():
    stream = LastingStream(sys.__stdout__)
    assert (stream.fileno(), stream.encoding) == (sys.__stdout__.fileno(), sys.__stdout__.encoding)
