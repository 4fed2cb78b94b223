"""The worker: what it imports and sees, and that it never outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.hostile_pool import FOLDER, GRADER, hostile_pool
from nft_jax.verify import Pool

ROOT = Path(__file__).resolve().parents[3]


def test_worker_imports_neither_jax_nor_the_package():
    with hostile_pool() as pool:
        assert pool.grade([("loaded", "")])[0].extracted == "_nft_jax"


def test_worker_finds_a_custom_grader_on_the_parents_path(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    with Pool(GRADER) as pool:
        assert pool.grade([("1", "1")])[0].status == "correct"


def test_worker_does_not_see_the_parents_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with hostile_pool(workers=1) as pool:
        names = pool.grade([("environment", "")])[0].extracted.split()
    assert "PATH" in names
    assert "HF_TOKEN" not in names


_PARENT = f"""
import sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from nft_jax.verify import Pool
pool = Pool({GRADER!r}, 2, 3600.0, paths=[{FOLDER!r}])
print(*pool.pids, flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=pool.grade, args=([("hang", "")] * 2,), daemon=True).start()
if sys.argv[1] == "ends":
    threading.Thread(target=pool.grade, args=([("hang", "")] * 2,), daemon=True).start()
    time.sleep(0.5)
    sys.exit(0)
time.sleep(3600)
"""


@pytest.mark.parametrize("what", ["idle", "busy", "ends"])
def test_worker_never_outlives_its_parent(what):
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, what], stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if what == "busy":
            _wait_until_busy(pids)
        if what != "ends":
            parent.send_signal(signal.SIGKILL)
        assert parent.wait(timeout=60) == (0 if what == "ends" else -signal.SIGKILL)
        assert all(has_ended(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def has_ended(pid: int, seconds: float = 60.0) -> bool:
    """Returns whether a process ends (a zombie has ended) within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def _wait_until_busy(pids: list[int]) -> None:
    """Waits until each has used processor time beyond its start, which only a hanging grader does."""
    tick = os.sysconf("SC_CLK_TCK")

    def seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / tick

    start = {pid: seconds(pid) for pid in pids}
    while any(seconds(pid) < start[pid] + 0.3 for pid in pids):
        pass


@pytest.mark.parametrize("end", ["close", "kill"])
def test_worker_ends_with_what_its_grader_started(end):
    with hostile_pool(workers=1) as pool:
        pid = int(pool.grade([("child", "")])[0].extracted)
        assert Path(f"/proc/{pid}").exists()
        if end == "kill":
            assert pool.grade([("sleep", "")])[0].status == "timeout"
            assert has_ended(pid)
    assert has_ended(pid)


def test_pool_keeps_its_workers_when_the_thread_that_created_it_ends():
    # Linux sends the parent-death signal when the *thread* that started the process ends.
    pools = []
    maker = threading.Thread(target=lambda: pools.append(hostile_pool()))
    maker.start()
    maker.join()
    with pools[0] as pool:
        assert pool.grade([("1", "1")])[0].status == "correct"
        assert pool.replacements == 0
