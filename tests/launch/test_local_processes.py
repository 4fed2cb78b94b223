"""launch/local_processes.sh: several processes on this machine. A stand-in takes the place of the program."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from helpers.launch import RUN, Stand, until

# A stand-in for the program: it writes its arguments, then ends as the entry of FATE with its number.
PROCESS = """#!/usr/bin/env python3
import json, os, signal, sys, time
folder, number = os.environ["FOLDER"], os.environ["NFT_JAX_PROCESS"]
def stops(*_):
    open(os.path.join(folder, f"asked.{number}"), "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, stops)
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
fate = json.loads(os.environ["FATE"])[int(number)]
if fate == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
names = [name for name in os.environ if name.startswith(("NFT_JAX", "JAX", "XLA"))]
with open(os.path.join(folder, f"process.{number}"), "a") as out:
    out.write(json.dumps({"words": sys.argv[1:]} | {name: os.environ[name] for name in names}) + "\\n")
while sum(name.startswith("process.") for name in os.listdir(folder)) < int(os.environ["NFT_JAX_PROCESSES"]):
    time.sleep(0.02)
if isinstance(fate, list):
    count = len(open(os.path.join(folder, f"process.{number}")).readlines())
    fate = fate[count - 1]
if fate == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if fate in ("hangs", "deaf"):
    time.sleep(60)
sys.exit(fate)
"""


def processes(stand: Stand, fates: list, *words: str) -> tuple[subprocess.CompletedProcess, list[list[dict]]]:
    stand.add(stand.folder / "bin" / "python", PROCESS.replace("/usr/bin/env python3", f"{sys.executable} -IS"))
    given = {"FOLDER": str(stand.folder), "FATE": json.dumps(fates)}
    ran = stand.script("launch/local_processes.sh", str(len(fates)), *words, *RUN, **given)
    files = [stand.folder / f"process.{number}" for number in range(len(fates))]
    return ran, [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_local_processes_know_their_numbers(stand):
    ran, started = processes(stand, [0, 0, 0], "--devices=4", "--module=some.module")
    assert (ran.returncode, ran.stderr) == (0, "")
    addresses = {one["NFT_JAX_DISTRIBUTED"] for (one,) in started}
    assert len(addresses) == 1 and re.fullmatch(r"127\.0\.0\.1:\d+", addresses.pop())
    for number, (one,) in enumerate(started):
        assert one["words"] == ["-m", "some.module", *RUN]
        assert (one["NFT_JAX_PROCESSES"], one["NFT_JAX_PROCESS"]) == ("3", str(number))
        assert (one["JAX_PLATFORMS"], one["JAX_CPU_COLLECTIVES_IMPLEMENTATION"]) == ("cpu", "gloo")
        assert one["XLA_FLAGS"] == "--xla_force_host_platform_device_count=4"


@pytest.mark.parametrize(
    ("fates", "code"),
    [
        *[([0, "hangs"], 1), (["hangs", 3], 3), (["hangs", 75], 75), ([1, "deaf"], 1), ([75, 75], 75)],
        *[(["killed", 75], 75), ([75, "killed"], 75), (["killed", "killed"], 75), (["killed", 3], 3), ([75, 3], 3)],
    ],
)
def test_local_processes_end_together_with_the_first_failure(stand, fates, code):
    began = time.monotonic()
    # Where both end by themselves, they have the time that a busy machine takes.
    ran, _ = processes(stand, fates, "--grace=1" if {"hangs", "deaf"} & {*fates} else "--grace=30")
    assert ran.returncode == code, ran.stderr
    assert time.monotonic() - began < 50, "they hang for 60 s"
    assert ("run the same command again" in ran.stderr) == (code == 75)
    asked = [(stand.folder / f"asked.{number}").exists() for number in range(2)]
    assert asked == [fate == "hangs" for fate in fates], "SIGTERM comes before SIGKILL"


def test_local_processes_run_again_after_75_with_again(stand):
    ran, started = processes(stand, [[75, 75, 0], [75, 75, 0]], "--again")
    assert ran.returncode == 0, ran.stderr
    assert [len(one) for one in started] == [3, 3]
    assert len({one["NFT_JAX_DISTRIBUTED"] for one in started[0]}) > 1 or len(started[0]) < 3


def test_local_processes_run_again_after_a_kill_with_again(stand):
    ran, started = processes(stand, [["killed", 75, 0], [75, "killed", 0]], "--again")
    assert ran.returncode == 0, ran.stderr
    assert "process 0 of 2 ended with exit code 137" in ran.stderr
    assert [len(one) for one in started] == [3, 3]


@pytest.mark.parametrize("words", [(), ("--again",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_local_processes_all_stop_when_the_script_is_stopped(stand, words, number):
    stand.add(stand.folder / "bin" / "python", PROCESS.replace("/usr/bin/env python3", f"{sys.executable} -IS"))
    given = {"FOLDER": str(stand.folder), "FATE": '["hangs", "hangs"]'}
    process = stand.starts("launch/local_processes.sh", "2", *words, *RUN, **given)
    until(lambda: len(list(stand.folder.glob("process.*"))) == 2, process)
    time.sleep(0.2)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=50)
    assert process.returncode == 75, printed
    assert [len(file.read_text().splitlines()) for file in stand.folder.glob("process.*")] == [1, 1]


def test_local_processes_need_a_number(stand):
    for words in ((), ("zero",), ("0",)):
        ran = stand.script("launch/local_processes.sh", *words)
        assert (ran.returncode, "how many" in ran.stderr) == (2, True)
