"""Tests a machine or a slice in some minutes, before one trusts it with a run; the same command on all hosts.

    python -m nft_jax.smoke --workdir=DIR [--distributed=auto] [--seconds=300] [--config.section.field=value]

All hosts are there; decode loops of different lengths give the same answers as in step; the verifier grades each
answer once, on its host; each attention kernel of the platform agrees with XLA; a run is killed after three steps, and
resumes. A line a check, a table at the end, `smoke.json` in the workdir; exit code 1 if one failed. Nothing hangs for
longer than --seconds (training: twice that), then the stacks are printed. This process asks no device: those that do
are its children, one after the other. Other flags are passed on to them.
"""

import argparse
import contextlib
import json
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

from nft_jax.smoke import line

KILLED_AT = 3  # the step after which the run is killed
CHECKS = 8  # at most, each with its own limit, before this process ends the child that runs them
LATE = 30.0  # seconds that a child has to say where it hangs


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser("nft_jax.smoke", add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--seconds", type=int, default=300)
    given, flags = parser.parse_known_args()
    if {"--help", "--helpfull", "-h"} & set(flags):
        print(__doc__)
        return 0
    if not given.workdir:
        print("error: --workdir=DIR is needed, on a slice one that all hosts see", file=sys.stderr)
        return 2
    smoke = Smoke(given.workdir, given.seconds, flags)
    smoke.check_devices()
    if smoke.facts:
        smoke.train()
    return smoke.report()


class Smoke:
    """The children of one test, on one host; `rows` is what came of them."""

    def __init__(self, workdir: str, seconds: int, flags: list[str]):
        self.workdir, self.seconds, self.flags = workdir.rstrip("/"), seconds, flags
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def check_devices(self) -> None:
        """Runs the checks of `nft_jax.smoke.checks`, and reads what they wrote."""
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.jsonl"
            flags = [f"--results={results}", f"--seconds={self.seconds}", *self.flags]
            child = Child("nft_jax.smoke.checks", [f"--workdir={self.workdir}", *flags])
            code = child.ends(self.seconds * CHECKS)
            rows = [json.loads(row) for row in results.read_text().splitlines()] if results.exists() else []
        self.rows = [row for row in rows if "check" in row]
        self.facts = next((row["facts"] for row in rows if "facts" in row), {})
        begun = [row["began"] for row in rows if "began" in row]
        if code not in (0, 1) or len(begun) > len(self.rows) or not begun:
            name = begun[len(self.rows)] if len(begun) > len(self.rows) else "start"
            self.add(name, False, child.seconds, f"did not end (exit code {code}); what it said stands above")

    def train(self) -> None:
        """Three steps and kill −9 on process 0, which the others notice; then all resume."""
        facts = self.facts
        flags = [
            f"--workdir={self.workdir}/smoke_{facts['stamp']}",
            f"--config.mesh.tensor={facts['tensor']}",
            f"--config.prompts_per_step={facts['prompts']}",
            *self.flags,
        ]
        first = Child("nft_jax.train", flags, killed_at=KILLED_AT)
        code = first.ends(2 * self.seconds)
        leads = facts["process"] == 0
        passed = code is not None and (first.killed or not leads)
        if leads or not passed:
            self.add("three steps", passed, first.seconds, "killed" if passed else f"ended with {code}, not killed")
        if not passed:
            return
        second = Child("nft_jax.train", flags)
        code = second.ends(2 * self.seconds)
        resumed = re.search(r"^resumed from (step \d+)", "".join(second.said), re.M)
        other = [step for step, reward in second.rewards.items() if first.rewards.get(step, reward) != reward]
        passed = code == 0 and (not leads or resumed is not None and not other)
        if leads or not passed:
            told = f"from {resumed[1]} to the end" if resumed else "did not resume"
            told += f"; other rewards than before at steps {other}" if other else ""
            self.add("resume", passed, second.seconds, told if code == 0 else f"{told}; ended with {code}")

    def add(self, check: str, passed: bool, seconds: float, said: str) -> None:
        row = {"check": check, "passed": passed, "seconds": seconds, "said": said}
        self.rows.append(row)
        if self.facts.get("process", 0) == 0 or not passed:
            print(line(row), flush=True)

    def report(self) -> int:
        """The table, and `smoke.json`, by process 0; 1 if something failed."""
        passed = bool(self.facts) and all(row["passed"] for row in self.rows)
        if self.facts.get("process", 0) == 0:
            whom = f"{self.facts.get('devices', 0)} × {self.facts.get('kind', 'unknown')}"
            print("\n".join(["", f"{whom}, {'all as it should be' if passed else 'FAILED'}", *map(line, self.rows)]))
            found = {"passed": passed, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **self.facts, "checks": self.rows}
            folder = epath.Path(self.workdir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "smoke.json").write_text(json.dumps(found, indent=2) + "\n")
        return 0 if passed else 1


class Child:
    """`python -m module` with the smoke test's config; its lines are printed, and kept in `said`.

    `rewards` are those that it reports, by step; it is killed (`killed`) once it has reported step `killed_at`.
    """

    def __init__(self, module: str, flags: list[str], killed_at: int | None = None):
        self.said: list[str] = []
        self.rewards: dict[int, str] = {}
        self.killed, self.killed_at, self.began = False, killed_at, time.monotonic()
        # With faulthandler, SIGABRT prints the stacks of all threads.
        command = [sys.executable, "-X", "faulthandler", "-m", module, "--config=smoke", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def ends(self, seconds: float) -> int | None:
        """Its exit code; None if it did not end in time, and was made to say where it was, and killed."""
        code = None
        try:
            code = self.process.wait(seconds + LATE)
        except subprocess.TimeoutExpired:
            print(f"no end after {seconds} s: {' '.join(self.process.args)}", file=sys.stderr, flush=True)
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LATE)
            self.process.kill()
        self.reader.join(LATE)
        return code

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def _read(self):
        for text in self.process.stdout:
            self.said.append(text)
            print(text, end="", flush=True)
            if step := re.match(r"\s*(\d+)/\d+ [━╌]+ reward (\S+)", text):
                self.rewards[int(step[1])] = step[2]
            if self.killed_at in self.rewards and not self.killed:
                self.killed = True
                self.process.kill()


if __name__ == "__main__":
    sys.exit(main())
