"""`Watchdog`: it reports a step that hangs in time, with where it hangs, and no other step."""

import io
import os
import re
import socket
import sys
import threading
import time
import types

from helpers.experiments import GRADERS_MODULE, write_graders
from nft_jax.run import watchdog as watchdog_module
from nft_jax.run.watchdog import Watchdog
from nft_jax.verify.pool.pool import Pool


def test_watchdog_limit_is_a_multiple_of_the_median_and_at_least_some_seconds(monkeypatch):
    monkeypatch.setattr(watchdog_module, "time", types.SimpleNamespace(monotonic=lambda: 7.0))
    watchdog = Watchdog(10, 2, str)
    assert watchdog.limit("step") == 20  # of the first step nothing is known
    for step, seconds in enumerate((1, 3, 100)):
        with watchdog.watch("step", step):
            watchdog._began -= seconds
    assert watchdog.limit("step") == 30
    assert watchdog.limit("evaluating step") == 20
    assert Watchdog(10, 2000, str).limit("step") == 20_000


def hanging(release: threading.Event):
    """A stand-in for a step."""
    release.wait()


def test_watchdog_reports_a_step_that_hangs_repeatedly_and_does_not_end_it(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    release, report = threading.Event(), "step 7 has taken "
    thread = threading.Thread(target=hanging, args=(release,), daemon=True)
    with Watchdog(1, 0.2, lambda: "nothing to grade") as watchdog:
        began = time.monotonic()
        with watchdog.watch("step", 7):
            thread.start()
            while sys.stderr.getvalue().count(report) < 2:
                assert time.monotonic() < began + 60
                time.sleep(0.01)
            release.set()
            thread.join()
        seconds = time.monotonic() - began
        # Between steps, however long it takes, nothing hangs.
        time.sleep(0.5)
    printed = sys.stderr.getvalue()
    assert 2 <= printed.count(report) <= seconds / 0.2
    assert max(float(after) for after in re.findall(f"{report}([0-9.]+) s", printed)) <= seconds + 0.05  # rounded
    for words in (
        "(it is the first) and goes on; the next report follows in 0.2 s",
        f"process 0 of 1, pid {os.getpid()} on {socket.gethostname()}",
        "verifier: nothing to grade",
        "in hanging",
        "in test_watchdog_reports_a_step_that_hangs",
    ):
        assert words in printed, words


def test_watchdog_prints_nothing_of_steps_that_take_the_usual_time(capfd):
    with Watchdog(10, 0.5, str) as watchdog:
        took = []
        for step in range(20):
            began = time.monotonic()
            with watchdog.watch("step", step):
                time.sleep(0.05)
            took.append(time.monotonic() - began)
        time.sleep(0.8)  # nothing is under way
    # None is as late as that, unless the machine stands still meanwhile.
    late, printed = sum(int(seconds / 0.5) for seconds in took), capfd.readouterr().err
    assert printed.count(" has taken ") <= late
    assert late or not printed
    assert watchdog not in threading.enumerate()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_pool_activity_names_the_grader_that_hangs(tmp_path):
    write_graders(tmp_path)
    (tmp_path / f"{GRADERS_MODULE}_hangs.py").write_text("import time\ndef hang(*_):\n    time.sleep(3600)\n")
    with Pool(f"{GRADERS_MODULE}_hangs:hang", workers=2, item_seconds=3600, paths=[str(tmp_path)]) as pool:
        assert pool.activity.count("idle") == 2
        batch = pool.begin()
        batch.add([("a response", "an answer")])
        deadline = time.monotonic() + 30
        while "on one for" not in pool.activity:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        printed = pool.activity
        assert "hangs:hang: 1 answers of 1 batches wait for a verdict, 0 processes were replaced" in printed
        assert all(str(pid) in printed for pid in pool.pids)
        batch.collect(0.01)
        assert "0 answers of 0 batches" in pool.activity


def test_pool_activity_is_idle_after_grading():
    with Pool("boxed_exact", workers=2) as pool:
        assert pool.grade([("\\boxed{1}", "1")] * 4)[0].status == "correct"
        assert pool.activity.count("idle") == 2
        assert "0 answers of 0 batches" in pool.activity
