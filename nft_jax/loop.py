"""The loop over the steps of a run or of a warm start: takes, reports, saves and evaluates them; stops and resumes."""

import abc
import contextlib
import shlex
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import jax

from nft_jax.config import Config, value_of
from nft_jax.experiment import Experiment
from nft_jax.models.finite import describe_nonfinite, find_nonfinite
from nft_jax.processes import distributed
from nft_jax.run.best import Best
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.compilations import Compilations
from nft_jax.run.damage import is_disk_full
from nft_jax.run.health import NonFiniteUpdates
from nft_jax.run.inspection import format_steps
from nft_jax.run.json_files import read_lines
from nft_jax.run.stopping import RUN_AGAIN, StopSignal
from nft_jax.run.trackers import Trackers, open_trackers
from nft_jax.run.watchdog import Watchdog
from nft_jax.run.workdir import Workdir, host_rss_mib, host_rss_peak_mib
from nft_jax.state import State

VALIDATION = "validation"  # before the names of held-out scores
RECENT = 10  # steps from whose mean the time left is estimated


@dataclass(kw_only=True)
class Loop(abc.ABC):
    """The host's side of consecutive steps, after compilation; a subclass says what a step is.

    Attributes:
      compilations: Warns of programs that are compiled once the steps have begun.
      fingerprint: The settings and problems that determine the numbers, saved with each checkpoint.
      program: Takes the state and `inputs`; returns the state after the step, in the same memory, and its record.
      inputs: What every step reads, on the mesh.
      state: The state after step `done`.
      done: Number of steps that were done before this process began.
    """

    experiment: Experiment
    folder: Workdir
    checkpoints: Checkpoints
    compilations: Compilations
    fingerprint: dict
    program: jax.stages.Compiled
    compile_seconds: float
    inputs: Any
    state: State
    done: int
    trackers: Trackers = field(init=False)
    recent: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=RECENT))
    best: Best = field(init=False)
    nonfinite: NonFiniteUpdates = field(init=False)

    @property
    def config(self) -> Config:
        return self.experiment.config

    # What a subclass defines.

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """Number of the last step."""

    @property
    @abc.abstractmethod
    def checkpoint_every(self) -> int:
        """Steps from one checkpoint to the next; 0: only the last step."""

    @property
    @abc.abstractmethod
    def optimizer_setting(self) -> str:
        """The name of the section that the optimizer has in the config."""

    @property
    @abc.abstractmethod
    def best_by(self) -> str:
        """The held-out score by which the best step is kept, as `Best` names it."""

    @abc.abstractmethod
    def is_evaluated(self, step: int) -> bool:
        """Returns whether held-out problems are evaluated after this step."""

    def prepare_record(self, step: int, record: Any) -> Any:
        """Returns the part of a record that `report_step` needs; all processes call it."""
        del step
        return record

    @abc.abstractmethod
    def report_step(self, step: int, record: Any, seconds: float) -> None:
        """Writes and prints the numbers of a step, and counts it in `nonfinite`."""

    @abc.abstractmethod
    def evaluate(self, step: int) -> None:
        """Evaluates the current weights, which are those after `step` steps, and reports the scores."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Reports after the last step."""

    # The loop itself.

    def run(self, stop_signal: StopSignal) -> None:
        """Runs all steps that are left; the host reads step n − 1 while the device runs step n.

        Raises:
          OSError: When the folder cannot be written any more, with the step from which the run resumes.
          FloatingPointError: When updates or the state are not finite, with the last good checkpoint.
        """
        try:
            self._run(stop_signal)
        except FloatingPointError as error:
            raise FloatingPointError(f"{self.folder.path}: {error}\n{self._describe_way_on()}") from error
        except OSError as error:
            remedy = "make room; " if is_disk_full(error) else ""
            raise OSError(f"{self.folder.path}: {error}\n{remedy}{self.checkpoints.describe_resume()}") from error

    def _run(self, stop_signal: StopSignal) -> None:
        self.begin()
        with open_trackers(self.folder.path, self.config, self.done, self._read_rows()) as self.trackers:
            self._evaluate_missing()
            record = self.config.record
            watchdog = Watchdog(record.hang_factor, record.hang_seconds, self._describe_verifier)
            with stop_signal.wait_for_steps(), watchdog:
                self._steps(stop_signal, watchdog)
            self.finish()

    def _read_rows(self) -> dict[str, list[dict]]:
        """Returns the lines of metrics and of held-out scores by the prefix of their curves."""
        files = {"": "metrics.jsonl", VALIDATION: "evaluation.jsonl"}
        return {prefix: read_lines(self.folder.path / file) for prefix, file in files.items()}

    def _describe_verifier(self) -> str:
        verifier = self.experiment.verifier
        return "none" if verifier is None else verifier.activity

    def begin(self) -> None:
        """Removes the lines of steps that will be taken again, and finds the best step so far."""
        if self.done:
            print(f"resumed from step {self.done} in {self.folder.path}", flush=True)
        # A run that begins anew evaluates step 0 again.
        removed = self.folder.remove_after(self.done or -1)
        self.folder.remove_after(self.done or -1, file="evaluation.jsonl")
        if removed:
            print(f"not saved, and taken again: {format_steps(removed)}", flush=True)
        rows = {row["step"] for row in read_lines(self.folder.path / "evaluation.jsonl")}
        evaluated = {step for step in range(self.done) if not step or self.is_evaluated(step)}
        if lost := sorted(evaluated - rows) if rows else []:
            print(f"evaluation.jsonl has no line of {format_steps(lost)}", flush=True)
        self.nonfinite = NonFiniteUpdates(self.config.record.nonfinite_steps)
        self.best = Best(self.best_by, self.folder, self.checkpoints)

    def _evaluate_missing(self) -> None:
        """Evaluates the step to start from: step 0, or one that the run had saved and not evaluated when it ended."""
        seen = {row["step"] for row in read_lines(self.folder.path / "evaluation.jsonl")}
        # Only process 0 is sure to see the rows that it wrote.
        if not self.done or (self.is_evaluated(self.done) and distributed.any_process(self.done not in seen)):
            self.evaluate(self.done)

    def _steps(self, stop_signal: StopSignal, watchdog: Watchdog) -> None:
        waiting = None
        for step in range(self.done + 1, self.steps + 1):
            began = time.perf_counter()
            with watchdog.watch("step", step):
                self.state, record = self.program(self.state, self.inputs)
                if waiting is not None:
                    self.report_step(*waiting)
                jax.block_until_ready(record)
            seconds = time.perf_counter() - began
            with watchdog.watch("agreeing after step", step):
                waiting = (step, self.prepare_record(step, record), seconds)
                last, stop = step == self.steps, stop_signal.is_requested_anywhere()
            evaluate = self.is_evaluated(step)
            save = last or stop or is_due(step, self.checkpoint_every)
            if save or evaluate:
                self.report_step(*waiting)
                waiting = None
            self.nonfinite.check()
            if stop:
                stop_signal.lift_deadline()
            # Weights whose updates are not finite may be broken themselves: they replace no good checkpoint.
            if save and (last or not self.nonfinite.steps):
                with watchdog.watch("saving step", step):
                    self.folder.push()  # the lines of a step are in the bucket before its checkpoint is
                    self.save(step)
            if stop and not last:
                self._stop(step)
            if evaluate:
                self._check_finite(step)
                with watchdog.watch("evaluating step", step):
                    self.evaluate(step)
            self.checkpoints.check()
            self.compilations.report_late(step)
        self.checkpoints.wait()

    def cost(self, tokens: int, seconds: float) -> dict[str, float]:
        """Returns the metrics of what a step of so many tokens took of time and of the host's memory."""
        return {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "compile_seconds": self.compile_seconds,
            "host_rss_mib": host_rss_mib(),
            "host_rss_peak_mib": host_rss_peak_mib(),
        }

    def time_left(self, step: int, seconds: float) -> float:
        """Returns how many seconds the steps after this one will take, if they are like the last ones."""
        self.recent.append(seconds)
        return (self.steps - step) * sum(self.recent) / len(self.recent)

    def save(self, step: int) -> None:
        """Starts saving the state after `step` steps."""
        self.compilations.report_late(step)
        self.checkpoints.save(step, self.state, self.fingerprint)
        # Several processes save a replicated array in slices; Orbax compiles the slicing at the first save.
        self.compilations.finish()

    def _check_finite(self, step: int) -> None:
        """Raises a FloatingPointError if the state after `step` steps holds NaN or inf, with which none answers."""
        if found := find_nonfinite(self.state.saved_parts):
            raise FloatingPointError(f"the state after step {step} can't be evaluated: {describe_nonfinite(found)}")

    def _stop(self, step: int) -> None:
        self.checkpoints.wait()
        saved = "is not saved, because no update of it was finite" if self.nonfinite.steps else "is saved"
        print(
            f"stopped after step {step}, which {saved}; {self.checkpoints.describe_resume()}",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(RUN_AGAIN)

    def _describe_way_on(self) -> str:
        """Returns the last good checkpoint, and the command that starts from it with other settings."""
        # It may still be on its way to the disk. If that fails, the one before is the last good one.
        with contextlib.suppress(OSError):
            self.checkpoints.wait()
        folder, latest, name = self.folder.path, self.checkpoints.latest, f"{self.optimizer_setting}.learning_rate"
        rate = f"--config.{name}={value_of(self.config, name) / 10:g}"
        if latest is None:
            return f"no step is saved: begin anew in another --workdir, with other settings, such as {rate}"
        return (
            f"the last good checkpoint: step {latest} ({self.checkpoints.folder / str(latest)}); to go on from its "
            f"weights with other settings: python -m nft_jax.train "
            f"--config={shlex.quote(f'{folder}/config.json')} --workdir={shlex.quote(f'{folder}_again')} "
            f"--config.base={shlex.quote(str(folder))} {rate}"
        )


def is_due(step: int, every: int) -> bool:
    """Returns whether something that happens every `every` steps happens after this one; never for 0."""
    return bool(every) and step % every == 0
