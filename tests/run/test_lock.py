"""`WorkdirLock`: one run at a time in a folder, whoever else starts there, and whatever is left of the last one."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.buckets import use_local_buckets, use_machine
from helpers.checkpoints import listing
from nft_jax.files import atomically
from nft_jax.run import lock, remote_workdir
from nft_jax.run.lock import GUARD, RECORD, Holder, WorkdirLock

ROOT = Path(__file__).parents[2]
HOLDS = """
import pathlib, sys, time
from nft_jax.run.lock import WorkdirLock
with WorkdirLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def shared(monkeypatch):
    """The folders of the tests count as shared by several machines, which notice one another within a second.

    Silence takes longer, since a machine that is busy with other work may stand still for a second.
    """
    monkeypatch.setattr(lock, "_is_local", lambda folder: False)
    for name, seconds in (("BEAT_SECONDS", 0.05), ("SILENT_SECONDS", 6.0), ("SETTLE_SECONDS", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


def leave_record(folder: Path, **changes) -> Holder:
    """Writes the record of another holder, by default one of another machine."""
    there = {"token": "theirs", "place": "there 1 pid", "host": "there", "pid": 12, "started": "34", "command": "train"}
    folder.mkdir(parents=True, exist_ok=True)
    holder = Holder(since="2026-01-02 03:04:05 UTC", **there | changes)
    with atomically(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(holder._asdict()))
    return holder


def no_locks(path: Path):
    raise OSError(errno.ENOLCK, "No locks available")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def beats(path: Path) -> Iterator[None]:
    """Lets the holder of a record give signs of life meanwhile."""
    stop = threading.Event()

    def beat():
        while not stop.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# Two processes on one machine.


def test_workdir_lock_names_the_process_that_has_the_folder_until_it_is_gone(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDS, folder]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        before = listing(folder)
        with pytest.raises(ValueError) as refused:
            WorkdirLock(folder).acquire()
        assert listing(folder) == before
        words = str(refused.value)
        assert words.startswith(f"--workdir={folder} is in use by process {other.pid} on ")
        assert f"kill {other.pid})" in words
        assert "since 20" in words
        assert str(folder) in words.partition("since")[2]  # its command
        other.send_signal(signal.SIGKILL)
        other.wait()
        with WorkdirLock(folder):
            assert json.loads((folder / RECORD).read_text())["pid"] == os.getpid()
    assert f"its last run has ended without giving it back (process {other.pid} on " in capsys.readouterr().out
    assert names(folder) == []


def test_workdir_lock_is_taken_by_one_of_many_that_start_at_once(tmp_path):
    leave_record(tmp_path)
    locks = [WorkdirLock(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(len(locks)) as threads:
        faults = list(threads.map(lambda one: one.claim(), locks))
    assert faults.count("") == 1
    assert all("is in use by process" in fault for fault in faults if fault)
    for one in locks:
        one.release()
    assert names(tmp_path) == []


def test_workdir_lock_can_be_taken_again_after_it_is_given_back(tmp_path):
    first, second = WorkdirLock(tmp_path), WorkdirLock(tmp_path)
    for _ in range(2):
        first.acquire()
        first.acquire()  # it has it
        with pytest.raises(ValueError, match="is in use by"):
            second.acquire()
        first.release()
        second.acquire()
        second.release()
        second.release()
    assert names(tmp_path) == []


def test_workdir_lock_on_one_machine_leaves_no_thread_and_says_nothing(tmp_path, capsys):
    before = {*threading.enumerate()}
    with WorkdirLock(tmp_path / "run"):
        assert {*threading.enumerate()} <= before
    assert capsys.readouterr().out == ""


def test_workdir_lock_refuses_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for name in (GUARD, RECORD):
        (tmp_path / name / name).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / GUARD, tmp_path / RECORD):
        with pytest.raises(ValueError, match="--workdir=.* can't be written"):
            WorkdirLock(folder).acquire()


# Several machines with one folder.


def test_workdir_lock_waits_for_a_sign_of_life_of_another_machine(tmp_path, shared, monkeypatch, capsys):
    holder = leave_record(tmp_path)
    in_use = "is in use by process 12 on there since 2026-01-02 03:04:05 UTC: train\n"
    with beats(tmp_path / RECORD), pytest.raises(ValueError, match=in_use):
        WorkdirLock(tmp_path).acquire()
    assert json.loads((tmp_path / RECORD).read_text()) == holder._asdict()
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.6)
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / RECORD).read_text())["pid"] == os.getpid()
    printed = capsys.readouterr().out
    assert f"waiting 0.6 s for a sign of life of it (if you know that it is gone: delete {tmp_path / RECORD}" in printed
    assert "its last run has ended without giving it back (process 12 on there " in printed
    assert "may be shared by machines" in printed
    assert names(tmp_path) == []


def test_workdir_lock_gives_signs_of_life(tmp_path, shared, monkeypatch):
    with WorkdirLock(tmp_path):
        # On another machine, where the disk's locks do not reach.
        monkeypatch.setattr(lock, "_place", lambda: "elsewhere")
        monkeypatch.setattr(lock, "lock_file", no_locks)
        with pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on "):
            WorkdirLock(tmp_path).acquire()


@pytest.mark.parametrize(
    ("changes", "lives"),
    [({}, True), ({"started": "1"}, False), ({"pid": 2**22 + 1}, False), ({"started": ""}, False)],
    ids=["it lives", "another process has its number", "no process has its number", "it never had one"],
)
def test_workdir_lock_looks_for_the_process_of_its_own_machine(tmp_path, shared, changes, lives):
    here = Holder.here()
    leave_record(tmp_path, **{"place": here.place, "pid": here.pid, "started": here.started} | changes)
    found = WorkdirLock(tmp_path)
    assert bool(found.claim()) == lives
    found.release()


def test_workdir_lock_without_locks_of_the_disk(tmp_path, shared, monkeypatch):
    monkeypatch.setattr(lock, "lock_file", no_locks)
    with WorkdirLock(tmp_path), pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on "):
        WorkdirLock(tmp_path).acquire()
    assert names(tmp_path) == []


def test_workdir_lock_ends_the_run_whose_folder_was_taken_over(tmp_path, shared, capsys):
    ended = threading.Event()
    with WorkdirLock(tmp_path, end=ended.set):
        (tmp_path / RECORD).unlink()  # someone believed it gone
        deadline = time.monotonic() + 60
        while not (tmp_path / RECORD).exists():
            assert not ended.wait(0.01) and time.monotonic() < deadline
        assert not ended.wait(0.1)
        assert json.loads((tmp_path / RECORD).read_text())["pid"] == os.getpid()
        other = leave_record(tmp_path)
        assert ended.wait(60)
    assert "was taken over by process 12 on there since" in capsys.readouterr().err
    assert json.loads((tmp_path / RECORD).read_text()) == other._asdict()


def test_workdir_lock_goes_to_the_last_of_two_that_write_at_once(tmp_path, shared, monkeypatch):
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: leave_record(tmp_path))
    with pytest.raises(ValueError, match="is in use by process 12 on there"):
        WorkdirLock(tmp_path).acquire()


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff\0", b'{"token": 1', b"[" * 100_000, b'"\x1b[2J"'])
def test_workdir_lock_takes_over_what_is_no_record_of_a_holder(tmp_path, shared, record, monkeypatch):
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.1)
    (tmp_path / RECORD).write_bytes(record)
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / RECORD).read_text())["pid"] == os.getpid()
    (tmp_path / RECORD).write_bytes(record)
    monkeypatch.setattr(lock, "_is_local", lambda folder: True)
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / RECORD).read_text())["pid"] == os.getpid()


def test_holder_is_printed_without_control_characters():
    assert "\x1b" not in str(Holder(command="python \x1b[2J\u202e"))


# A bucket.


def test_workdir_lock_of_a_bucket_is_seen_from_another_machine(tmp_path, shared, monkeypatch, capsys):
    use_local_buckets(monkeypatch, tmp_path)
    bucket = tmp_path / "buckets" / "name" / "run"
    use_machine(monkeypatch, tmp_path / "one")
    mirror = remote_workdir.open_workdir(str(bucket))
    with WorkdirLock(mirror):
        assert names(bucket) == [RECORD]
        assert names(mirror) == [".bucket_stamp", GUARD]
        (mirror / "metrics.jsonl").write_text("1")
        remote_workdir.push(mirror)
        assert names(bucket) == [".bucket_stamp", RECORD, "metrics.jsonl"]
        # Its mirror is newer than the bucket, whoever reads it.
        (mirror / "metrics.jsonl").write_text("12")
        (bucket / ".bucket_stamp").write_text("another")
        assert (remote_workdir.open_workdir(str(bucket)) / "metrics.jsonl").read_text() == "12"
        with monkeypatch.context() as patch:
            use_machine(patch, tmp_path / "other")
            patch.setattr(lock, "_place", lambda: "other")
            other = remote_workdir.open_workdir(str(bucket))
            assert names(other) == [".bucket_stamp", "metrics.jsonl"]
            with pytest.raises(ValueError, match=f"is in use by process {os.getpid()} on "):
                WorkdirLock(other).acquire()
    assert RECORD not in names(bucket)
    assert "may be shared by machines" in capsys.readouterr().out
