"""`StopSignal`: what signals do to a process, whatever its main thread is doing. Each case runs in a new process."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Longer than any test waits: what ends before that was ended.
FOR_EVER = 3600
PRELUDE = f"""
import ctypes, os, signal, threading, time
from nft_jax.run.stopping import StopSignal

FOR_EVER = {FOR_EVER}
SIGTERM, SIGINT, SIGHUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

def get(number):
    os.kill(os.getpid(), number)

def requested(stop_signal):
    while not stop_signal.is_requested:
        time.sleep(0.01)

asked, ahead, monotonic = [], 0, time.monotonic

def clock():
    asked.append(ahead)
    return monotonic() + ahead

def pass_the_grace():
    "Puts the clock of a requested stop past its deadline, and waits until it has looked at it a few times."
    global ahead
    while not asked:  # the deadline is not set yet
        time.sleep(0.01)
    ahead = 2 * FOR_EVER
    while asked.count(ahead) < 3:
        time.sleep(0.01)

time.monotonic = clock

def deadlock():
    "Waits in C, as a step does inside XLA: no signal interrupts it, and Python runs no handler."
    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
    lock(mutex), lock(mutex)
"""


def process(body: str, *, grace: float = FOR_EVER) -> subprocess.CompletedProcess:
    """Runs `body` with a `stop_signal` that waits `grace` seconds, and prints "the end" if it gets there."""
    whole = (
        f"{PRELUDE}\nwith StopSignal({grace}, lambda: 'RESUMES FROM 7') as stop_signal:\n"
        f"{textwrap.indent(textwrap.dedent(body), '    ')}\nprint('the end')"
    )
    return subprocess.run([sys.executable, "-c", whole], cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("wait", ["time.sleep(FOR_EVER)", "deadlock()"])
def test_stop_signal_ends_the_process_at_once_while_no_step_runs(name, wait):
    done = process(f"threading.Timer(0.1, get, [{name}]).start()\n{wait}")
    assert (done.returncode, done.stdout) == (75, "")
    assert name in done.stderr
    assert "RESUMES FROM 7" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_stop_signal_lift_deadline_leaves_time_to_save(name):
    done = process(
        f"""
        with stop_signal.wait_for_steps():
            assert not stop_signal.is_requested
            get({name})
            requested(stop_signal)
            stop_signal.lift_deadline()
            pass_the_grace()
        """
    )
    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert name in done.stderr
    assert f"{FOR_EVER} s" in done.stderr


LATER = "threading.Timer(0.1, get, [SIGTERM]).start()"
HANGS = {
    "at once": f"{LATER}\n    deadlock()",
    "after a save without a request": f"stop_signal.lift_deadline()\n    {LATER}\n    deadlock()",
    "in Python": f"{LATER}\n    time.sleep(FOR_EVER)",
}


@pytest.mark.parametrize("hang", HANGS)
def test_stop_signal_gives_up_a_step_that_does_not_end_in_time(hang):
    done = process(f"with stop_signal.wait_for_steps():\n    {HANGS[hang]}", grace=0.3)
    assert (done.returncode, done.stdout) == (75, "")
    assert "did not end in 0.3 s; RESUMES FROM 7" in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("state", ["pass", "stop_signal.lift_deadline()"])
def test_stop_signal_kills_at_once_at_ctrl_c_after_another_signal(name, state):
    done = process(
        f"""
        with stop_signal.wait_for_steps():
            get({name})
            requested(stop_signal)
            {state}
            get(SIGINT)
            deadlock()
        """
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith("killed; RESUMES FROM 7\n")


def test_stop_signal_ignores_more_sigterms_during_a_save():
    done = process(
        """
        with stop_signal.wait_for_steps():
            get(SIGTERM)
            requested(stop_signal)
            stop_signal.lift_deadline()
            pass_the_grace()
            for _ in range(5):
                get(SIGTERM)
                time.sleep(0.1)
        """
    )
    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert done.stderr.count("SIGTERM") == 1


def test_stop_signal_does_not_prolong_the_grace_at_more_sigterms():
    done = process(
        """
        def insist():
            while True:
                get(SIGTERM)
                time.sleep(0.02)

        with stop_signal.wait_for_steps():
            threading.Thread(target=insist, daemon=True).start()
            deadlock()
        """,
        grace=0.3,
    )
    assert done.returncode == 75
    assert "did not end in 0.3 s" in done.stderr


def test_stop_signal_prints_and_leaves_nothing_without_a_signal():
    done = process("with stop_signal.wait_for_steps():\n    pass\nassert len(threading.enumerate()) == 2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
    after = """
    own = lambda *_: print("my own")
    signal.signal(SIGTERM, own)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    files = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with StopSignal(FOR_EVER, lambda: "") as inner:
        assert signal.getsignal(SIGTERM) is not own
    assert signal.getsignal(SIGTERM) is own
    assert signal.set_wakeup_fd(-1) == write
    assert [thread.name for thread in threading.enumerate()].count("stop signal") == 1
    assert files is None or files == set(os.listdir("/proc/self/fd"))
    get(SIGTERM)
    """
    done = process(after)
    assert (done.returncode, done.stdout, done.stderr) == (0, "my own\nthe end\n", "")


def test_stop_signal_leaves_sighup_to_nohup():
    done = process(
        """
        signal.signal(SIGHUP, signal.SIG_IGN)
        with StopSignal(FOR_EVER, lambda: "") as inner, inner.wait_for_steps():
            get(SIGHUP)
            time.sleep(0.2)
            assert not inner.is_requested
        assert signal.getsignal(SIGHUP) == signal.SIG_IGN
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


def test_stop_signal_ignores_other_signals():
    """Python writes the numbers of all signals that have a handler into the one pipe."""
    done = process(
        """
        signal.signal(signal.SIGUSR1, lambda *_: print("my own"))
        get(signal.SIGUSR1)
        time.sleep(0.2)
        with stop_signal.wait_for_steps():
            get(signal.SIGUSR1)
            time.sleep(0.2)
            assert not stop_signal.is_requested
            get(SIGTERM)
            requested(stop_signal)
            stop_signal.lift_deadline()
            get(signal.SIGUSR1)
        """
    )
    assert (done.returncode, done.stdout) == (0, "my own\n" * 3 + "the end\n")
    assert "Traceback" not in done.stderr
