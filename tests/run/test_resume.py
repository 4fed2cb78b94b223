"""A run that was interrupted in any way and at any moment resumes bit for bit."""

import contextlib
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from helpers import commands
from helpers.buckets import use_local_buckets, use_machine
from helpers.experiments import assert_same, compilations, small
from helpers.runs import Command, Ran, run, untimed
from nft_jax import train
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import Checkpoints

# Takes a while, so that a signal arrives during a step. It waits while the run has as many lines as the file "hold"
# says: however late a test looks, the run is no further.
GRADER = """
import contextlib, time, zlib
from pathlib import Path

HERE = Path(__file__).parent

def is_held():
    with contextlib.suppress(FileNotFoundError):
        return (HERE / "ended" / "metrics.jsonl").read_text().count("\\n") >= int((HERE / "hold").read_text())

def coin(response, answer):
    time.sleep(0.01)
    while is_held():
        (HERE / "held").touch()
        time.sleep(0.01)
    return zlib.crc32(response.encode()) % 2 == 0
"""
MODULE = "grader_that_can_hang"
STEPS = 10
# Dynamic sampling takes more rounds where groups are not mixed, and carries surplus groups: steps differ.
RUN = {
    "steps": STEPS,
    "verify__grader": f"{MODULE}:coin",
    "verify__seconds_per_answer": 3600.0,
    "verify__seconds_per_round": 3600.0,
    "warm_start__steps": 3,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 64,
    "evaluation__max_problems": 8,
    "evaluation__problems_per_batch": 8,
    "evaluation__answers_per_problem": 1,
    "evaluation__every_steps": 1,
    "record__rollouts_every_steps": 1,
    "record__checkpoint_every_steps": 2,
    "record__grace_seconds": 120.0,
    "selection__carry": True,
    "loss__kl_weight": 0.1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    (folder / f"{MODULE}.py").write_text(GRADER)
    sys.path.insert(0, str(folder))
    return folder


def assert_equal_runs(ran: Ran, whole: Ran) -> None:
    """Asserts that a run left the files of an uninterrupted run, except for measured times."""
    rows = untimed(ran.rows("metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows == untimed(whole.rows("metrics.jsonl"))
    assert ran.rows("evaluation.jsonl") == whole.rows("evaluation.jsonl")
    assert ran.json("result.json") == whole.json("result.json")
    rollouts = [{path.name: path.read_text() for path in one.path.glob("rollouts/*")} for one in (ran, whole)]
    assert rollouts[0] == rollouts[1]
    assert len(rollouts[0]) == 2 * len(rows)  # answers and slots
    assert_same(ran.checkpoint(len(rows)), whole.checkpoint(len(rows)))


def assert_steps_differ(ran: Ran) -> None:
    """Asserts that steps took different numbers of rounds and carried groups, so that the state matters."""
    rows = ran.rows("metrics.jsonl")
    assert len({row["rounds"] for row in rows}) > 1
    assert any(row["groups_carried_in"] for row in rows[2:])
    assert len({row["kl"] for row in rows}) > 1


# In this process, from prepared folders.


@pytest.fixture(scope="module")
def train_on(folder):
    """`(data, tensor, workdir) -> Ran`: a run on that mesh, whose programs are compiled once."""
    with contextlib.ExitStack() as stack:
        parts: dict[tuple, dict] = {}

        def once(make):
            made = []
            return lambda *arguments: made[0] if made else made.append(make(*arguments)) or made[0]

        def get(data, tensor, workdir):
            changes = {"mesh__data": data, "mesh__tensor": tensor, "record__keep_checkpoints": STEPS}
            config = small(**RUN | changes | ({} if data == 1 else {"warm_start__steps": 0}))
            if (data, tensor) not in parts:
                devices = jax.devices()[: data * tensor]
                experiment = stack.enter_context(train.open_experiment(config, folder / "tokenizer", devices))
                # The program calls the grader of the step that it was compiled from.
                object.__setattr__(experiment, "step", once(experiment.step))
                parts[data, tensor] = {
                    "open_experiment": lambda *_: contextlib.nullcontext(experiment),
                    "make_evaluator": once(train.make_evaluator),
                    "compile_step": once(train.compile_step),
                }
            return run(config, folder / workdir, folder / f"{workdir} once", **parts[data, tensor])

        yield get


@pytest.fixture(scope="module")
def whole(train_on):
    """All steps at once on one device."""
    return train_on(1, 1, "whole")


@pytest.fixture(scope="module")
def whole_on_eight(train_on):
    """All steps at once on eight devices."""
    return train_on(4, 2, "whole on eight")


def left_by_a_kill(whole: Ran, step: int, torn: str, folder: Path) -> None:
    """Makes the folder of a run killed after saving `step` (0: none), while it wrote a line of the file `torn`.

    The lines of a step are written before it is saved, its evaluation after that.
    """
    shutil.copytree(whole.path, folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    (folder / "result.json").unlink()
    # Evaluations are numbered from 0, metrics from 1.
    count = step + (torn == "metrics.jsonl")
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        half = lines[count][: len(lines[count]) // 2] if name == torn else ""
        (folder / name).write_text("".join(lines[:count]) + half)


@pytest.mark.parametrize(
    ("mesh", "step", "torn"),
    [((1, 1), 0, "metrics.jsonl"), ((1, 1), 4, "evaluation.jsonl"), ((4, 2), 4, "metrics.jsonl")],
)
def test_train_resumes_bit_for_bit_after_a_kill(folder, train_on, request, mesh, step, torn):
    whole = request.getfixturevalue("whole" if mesh == (1, 1) else "whole_on_eight")
    assert_steps_differ(whole)
    name = f"left on {mesh} at {step}"
    left_by_a_kill(whole, step, torn, folder / name)
    with pytest.raises(ValueError, match="Unterminated|Expecting|delimiter"):
        Ran(folder / name).rows(torn)
    resumed = train_on(*mesh, name)
    assert ("resumed from step 4" in resumed.printed) == (step == 4)
    assert "warm start:" not in resumed.printed
    assert_equal_runs(resumed, whole)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file except the tokenizer, which is trained on the given problems."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("tokenizer/")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "config.seed: the run has 0, given 1"),
        ({"optimizer__learning_rate": 2e-3}, "config.optimizer.learning_rate: the run has 0.001, given 0.002"),
        (
            {"data__arithmetic_max_operand": 4},
            "config.data.arithmetic_max_operand: the run has 3, given 4\n  the train problems: .* of digest",
        ),
        ({"selection__carry": False}, "config.selection.carry: the run has True, given False"),
        ({"model__width": 48}, "config.model.width: the run has 32, given 48"),
    ],
)
def test_train_refuses_another_run_and_changes_nothing(folder, whole, changes, words):
    before = contents(whole.path)
    with compilations() as seen, pytest.raises(ValueError, match=f"holds another run:\n  {words}"):
        train.main(small(**RUN | changes), whole.path)
    assert seen == []
    assert contents(whole.path) == before


def test_train_refuses_a_warm_start_with_other_settings(whole, tmp_path):
    """No step is saved yet: only the warm start identifies the run."""
    shutil.copytree(whole.path / "warm_start", tmp_path / "run" / "warm_start")
    (tmp_path / "run" / "config.json").write_text("as it was")
    words = r"run/warm_start holds another run:\n  config.warm_start.steps: the run has 3, given 4\n"
    with compilations() as seen, pytest.raises(ValueError, match=words):
        train.main(small(**RUN | {"warm_start__steps": 4, "optimizer__learning_rate": 0.5}), tmp_path / "run")
    assert seen == []
    assert (tmp_path / "run" / "config.json").read_text() == "as it was"


# In another process: one folder, started again after each end.


class Ended(NamedTuple):
    """How a process ended: exit code, seconds from its moment on, output, and the steps in metrics and checkpoints."""

    path: Path
    pid: int
    code: int
    seconds: float
    printed: str
    steps: list[int]
    saved: list[int]


@pytest.fixture(scope="module")
def until(folder):
    """`(moment, signal, …)` starts the run, waits until `moment(run)`, ends it, and returns how it ended.

    With `hold` the run waits when it has so many lines, until the signal is sent; with `hangs` until its end.
    """

    def start(
        moment: Callable[[Ran], bool],
        number: signal.Signals | None = None,
        *,
        hold: int | None = None,
        hangs: bool = False,
        **changes,
    ) -> Ended:
        def release():
            (folder / "hold").unlink(missing_ok=True)

        if hold is not None:
            (folder / "hold").write_text(f"{hold}")
        process = Command(small(**RUN | changes), folder / "ended", folder)
        try:
            assert process.wait(lambda: moment(process.run)) == (number is not None), process.printed
        except BaseException:
            # One that is held would load the machine until its grader gives up, in an hour.
            if process.process.running:
                process.end(signal.SIGKILL)
            raise
        began = time.monotonic()
        code = process.end(number, (lambda: None) if hangs else release)
        seconds, run = time.monotonic() - began, process.run
        release()
        with Checkpoints(run.path) as checkpoints:
            return Ended(run.path, process.process.pid, code, seconds, process.printed, run.steps, checkpoints.steps)

    return start


def has(count: int) -> Callable[[Ran], bool]:
    """Returns the condition that `metrics.jsonl` has `count` steps; true up to 0.3 s later, to vary the moment."""
    wait = random.Random(count).uniform(0, 0.3)

    def moment(run):
        there = len(run.steps) >= count
        if there:
            time.sleep(wait)
        return there

    return moment


@pytest.fixture(scope="module")
def second():
    """How a second start of the run ended while the first one hung, and the folder before and after it."""
    return {}


@pytest.fixture(scope="module")
def hung(until, folder, second):
    """Stopped while its grader hangs; meanwhile the same command is given again."""

    def moment(run):
        hangs = (folder / "held").exists() and (run.path / "checkpoints" / "2").exists()
        # A step that is only slow is reported too.
        hangs = hangs and re.search(r"has taken[\s\S]*on one for [1-9]", (folder / "ended.log").read_text()) is not None
        if hangs and not second:
            second["before"] = contents(run.path)
            second["ended"] = commands.run("nft_jax.train", f"--workdir={run.path}", PYTHONPATH=str(folder))
            second["part"] = commands.run("nft_jax.sft", f"--workdir={run.path}/warm_start", PYTHONPATH=str(folder))
            second["after"] = contents(run.path)
        return hangs

    watch = {"record__hang_factor": 1.5, "record__hang_seconds": 1.5}
    return until(moment, signal.SIGTERM, hold=2, hangs=True, record__grace_seconds=1.0, **watch)


@pytest.fixture(scope="module")
def killed(hung, until):
    """Killed during its steps."""
    return until(has(5), signal.SIGKILL, hold=6)


@pytest.fixture(scope="module")
def stopped(killed, until):
    """Stopped during its steps."""
    return until(has(7), signal.SIGTERM, hold=8)


@pytest.fixture(scope="module")
def finished(stopped, until):
    """Not interrupted any more."""
    return until(lambda run: False)


def test_train_refuses_a_folder_where_a_run_is_alive_and_changes_nothing(hung, second):
    """Neither the live run's lines nor its checkpoint in the making."""
    ended = second["ended"]
    assert ended.returncode == 2
    assert f"error: --workdir={hung.path} is in use by process {hung.pid} on " in ended.stderr
    assert "nft_jax.train --config=" in ended.stderr
    assert f"error: --workdir={hung.path}/warm_start is in use by process {hung.pid} on " in second["part"].stderr
    assert second["part"].returncode == 2
    assert f"kill {hung.pid})" in ended.stderr
    assert second["after"] == second["before"]
    assert "lock.json" in second["before"]


def test_stop_signal_gives_up_a_step_that_hangs(hung):
    assert hung.code == 75
    assert hung.seconds < 120
    newest = hung.saved[-1]
    assert 1 <= newest <= 4
    assert f"the step did not end in 1 s; the same command resumes from step {newest} (" in hung.printed


def test_stop_signal_saves_the_running_step(stopped):
    assert stopped.code == 75
    assert stopped.saved[-1] == stopped.steps[-1]
    assert 7 <= stopped.steps[-1] < STEPS
    assert "SIGTERM: waiting at most 120 s for the running step" in stopped.printed
    last = stopped.steps[-1]
    assert f"stopped after step {last}, which is saved; the same command resumes from step {last} (" in stopped.printed


def test_train_resumes_from_the_newest_checkpoint(hung, killed, stopped, finished):
    assert (killed.code, finished.code) == (-signal.SIGKILL, 0)
    assert f"its last run has ended without giving it back (process {killed.pid} on " in stopped.printed
    assert "without giving it back" not in finished.printed
    assert not (finished.path / "lock.json").exists()
    assert "resumed from" not in hung.printed
    for before, after in ((hung, killed), (killed, stopped), (stopped, finished)):
        assert f"resumed from step {before.saved[-1]} in" in after.printed
        assert "warm start:" not in after.printed


def test_train_resumes_bit_for_bit_after_several_ends(folder, finished, whole):
    assert_equal_runs(Ran(folder / "ended"), whole)
    assert_steps_differ(whole)


def test_best_step_is_kept_beside_the_last(folder, finished):
    """No kill loses the best step."""
    ran = Ran(folder / "ended")
    scores = {row["step"]: row["greedy"] for row in ran.rows("evaluation.jsonl") if row["step"]}
    best = ran.json("best.json")
    assert best["value"] == scores[best["step"]] == max(scores.values())
    assert best["step"] in finished.saved
    assert finished.saved[-1] == STEPS
    assert len(set(finished.saved) - {best["step"]}) <= 2


def test_watchdog_prints_where_a_step_hangs(hung):
    printed = hung.printed
    for words in ("has taken", "process 0 of 1", f"{MODULE}:coin", "on one for", "in _steps", "Thread 0x"):
        assert words in printed, words


def test_remote_workdir_resumes_on_another_machine(folder, train_on, whole, monkeypatch):
    """A folder stands for the bucket; nothing is left of the first machine."""
    scheme = use_local_buckets(monkeypatch, folder)
    use_machine(monkeypatch, folder / "another machine")
    remote = folder / "buckets" / "name" / "run"
    left_by_a_kill(whole, 4, "metrics.jsonl", remote)
    local = remote_workdir.open_workdir(f"{scheme}name/run")
    resumed = train_on(1, 1, local.relative_to(folder))
    assert "resumed from step 4" in resumed.printed
    # As the command does at its end.
    remote_workdir.push(local)
    assert_equal_runs(Ran(remote), whole)
    assert not (local / "checkpoints").exists()
    assert not (local / "warm_start" / "weights").exists()
    assert (remote / "curves.png").read_bytes() == (local / "curves.png").read_bytes()


@pytest.mark.slow
def test_train_resumes_bit_for_bit_after_twenty_kills(folder, capsys):
    """Moments are uniform over a whole run: warm start, compiling, steps, saving, reporting."""
    config, drawn = small(**RUN | {"steps": 40, "record__checkpoint_every_steps": 1}), random.Random(0)
    began = time.monotonic()
    whole = Command(config, folder / "whole of forty", folder)
    assert whole.end() == 0, whole.printed
    seconds = time.monotonic() - began
    kills = runs = resumes = 0
    while runs == 0 or kills < 20:
        workdir = folder / f"run {runs} of forty"
        moment = time.monotonic() + (drawn.uniform(0, seconds) if kills < 20 else float("inf"))
        process = Command(config, workdir, folder)
        if process.wait(lambda moment=moment: time.monotonic() >= moment):
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            kills += 1
        else:
            assert process.end() == 0, process.printed
            assert_equal_runs(Ran(workdir), whole.run)
            runs += 1
        resumes += "resumed from step" in process.printed
    with capsys.disabled():
        print(f"\n{kills} kills within {seconds:.0f} s of a start: {resumes} resumes, {runs} runs ended, all alike")
