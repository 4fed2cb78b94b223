"""Runs the smoke test's child processes on one host, and reports their results."""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from etils import epath

from nft_jax.files import json_text
from nft_jax.run.json_files import read_lines
from nft_jax.smoke.result import CheckResult

KILLED_AT = 3  # the step after which the run is killed
CHECKS = 8  # most checks of a child process; each has its own time limit
GRACE_SECONDS = 30.0  # how long a child may take to print its stacks


class SmokeTest:
    """The smoke test on one host. `results` are those of its checks, `facts` what the first child found."""

    def __init__(self, workdir: str, seconds: int, flags: list[str]):
        self.workdir, self.seconds, self.flags = workdir.rstrip("/"), seconds, flags
        self.results: list[CheckResult] = []
        self.facts: dict[str, Any] = {}

    def check_devices(self) -> None:
        """Runs the checks of `nft_jax.smoke.checks`, and reads their results."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.jsonl"
            flags = [f"--workdir={self.workdir}", f"--results={path}", f"--seconds={self.seconds}", *self.flags]
            child = Child("nft_jax.smoke.checks", flags)
            code = child.wait(self.seconds * CHECKS)
            rows = read_lines(path)
        self.results = [CheckResult(**row) for row in rows if "check" in row]
        self.facts = next((row["facts"] for row in rows if "facts" in row), {})
        started = [row["started"] for row in rows if "started" in row]
        unfinished = started[len(self.results) :]
        if code not in (0, 1) or unfinished or not started:
            name = unfinished[0] if unfinished else "start"
            fault = "did not end" if code is None else f"ended early, with exit code {code}"
            self.add(CheckResult(name, False, child.seconds, f"{fault}; see its output above"))

    def train(self) -> None:
        """Trains three steps, kills process 0 (the others notice), and resumes in all processes."""
        facts = self.facts
        flags = [
            f"--workdir={self.workdir}/smoke_{facts['stamp']}",
            f"--config.mesh.tensor={facts['tensor']}",
            f"--config.prompts_per_step={facts['prompts']}",
            *self.flags,
        ]
        first = Child("nft_jax.train", flags, kill_at=KILLED_AT)
        code = first.wait(2 * self.seconds)
        leads = facts["process"] == 0
        passed = code is not None and (first.killed or not leads)
        if leads or not passed:
            message = "killed" if passed else f"ended with {code}, not killed"
            self.add(CheckResult("three steps", passed, first.seconds, message))
        if not passed:
            return
        second = Child("nft_jax.train", flags)
        code = second.wait(2 * self.seconds)
        resumed = re.search(r"^resumed from (step \d+)", "".join(second.lines), re.M)
        other = [step for step, reward in second.rewards.items() if first.rewards.get(step, reward) != reward]
        passed = code == 0 and (not leads or resumed is not None and not other)
        if leads or not passed:
            message = f"from {resumed[1]} to the end" if resumed else "did not resume"
            message += f"; other rewards than before at steps {other}" if other else ""
            message += "" if code == 0 else f"; ended with {code}"
            self.add(CheckResult("resume", passed, second.seconds, message))

    def add(self, result: CheckResult) -> None:
        """Keeps a result, and prints it if it failed or this is process 0."""
        self.results.append(result)
        if self.facts.get("process", 0) == 0 or not result.passed:
            print(result.line(), flush=True)

    def report(self) -> int:
        """Prints the table and writes `smoke.json`, in process 0; returns the exit code."""
        passed = bool(self.facts) and all(result.passed for result in self.results)
        if self.facts.get("process", 0) == 0:
            devices = f"{self.facts.get('devices', 0)} × {self.facts.get('kind', 'unknown')}"
            print(f"\n{devices}, {'all checks passed' if passed else 'FAILED'}")
            print("\n".join(result.line() for result in self.results))
            checks = [result._asdict() for result in self.results]
            report = {"passed": passed, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **self.facts, "checks": checks}
            folder = epath.Path(self.workdir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "smoke.json").write_text(json_text(report, 2) + "\n", encoding="utf-8")
        return 0 if passed else 1


class Child:
    """A process `python -m module` with the smoke test's config, whose output is printed.

    Attributes:
      rewards: the reward that it printed, by step.
      killed: whether it was killed, which happens when it has printed step `kill_at`.
    """

    def __init__(self, module: str, flags: list[str], kill_at: int | None = None):
        self.lines: list[str] = []
        self.rewards: dict[int, str] = {}
        self.killed, self.kill_at, self.began = False, kill_at, time.monotonic()
        # With faulthandler, SIGABRT prints the stacks of all threads.
        command = [sys.executable, "-X", "faulthandler", "-m", module, "--config=smoke", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def wait(self, seconds: float) -> int | None:
        """Waits for the end; returns the exit code, or None after a time-out, which prints the stacks and kills."""
        code = None
        try:
            code = self.process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"no end after {seconds} s: {' '.join(self.process.args)}", file=sys.stderr, flush=True)
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_SECONDS)
            self.process.kill()
        self.reader.join(GRACE_SECONDS)
        return code

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def _read(self) -> None:
        for text in self.process.stdout:
            self.lines.append(text)
            print(text, end="", flush=True)
            if step := re.match(r"\s*(\d+)/\d+ (?:[━╌]+ )?reward (\S+)", text):
                self.rewards[int(step[1])] = step[2]
            if self.kill_at in self.rewards and not self.killed:
                self.killed = True
                self.process.kill()
