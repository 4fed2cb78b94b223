"""A run in a damaged folder: refused by name before anything is compiled, or said and made anew; never a traceback.

`python -m pytest tests/run/test_damaged_folders.py -s` prints the seed and the outcomes by kind.
"""

import contextlib
import io
import json
import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from helpers.damaged_folders import KINDS, damage_folder
from helpers.experiments import grader, small, write_graders
from helpers.runs import Command, Ran, run
from nft_jax import train
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.experiment import open_experiment
from nft_jax.report import curves
from nft_jax.run.damage import make_digests
from nft_jax.run.inspection import SCORES, check_lines, inspect_folder
from nft_jax.run.tensorboard import TensorBoard

SEED, COUNT = 18, 200
STEPS = 4
RUN = {
    "warm_start__steps": 2,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 32,
    "evaluation__max_problems": 4,
    "evaluation__problems_per_batch": 8,
    "evaluation__answers_per_problem": 1,
    "evaluation__every_steps": 1,
    "record__checkpoint_every_steps": 2,
    "selection__max_rounds": 1,
}


NOT_READ = ("checkpoints/", "evaluation.jsonl", "base_answers.npz")


class Reached(Exception):
    """The start has come to what compiles."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("damaged"))


def config_of(steps: int):
    return small(steps=steps, verify__grader=grader("coin"), **RUN)


@pytest.fixture(scope="module")
def whole(folder):
    """A finished run of four steps."""
    return run(config_of(STEPS), folder / "run", folder / "whole")


@pytest.fixture(scope="module")
def experiments(folder, whole):
    """By the number of steps: that of the finished run, and more."""
    with contextlib.ExitStack() as stack:
        yield {
            steps: stack.enter_context(open_experiment(config_of(steps), folder / "run"))
            for steps in (STEPS, STEPS + 2)
        }


class Start:
    """What `train` does with a folder before it compiles, and what it does then but for the steps themselves.

    Attributes:
      said: All output.
      state: The restored state; None without one.
      reached: Whether it came to what compiles.
    """

    def __init__(self, experiment, folder: Path):
        self.state, self.reached, self.folder, said = None, False, folder, io.StringIO()
        handler = logging.StreamHandler(said)
        logging.getLogger("nft_jax").addHandler(handler)
        try:
            with (
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
                pytest.MonkeyPatch.context() as patch,
            ):
                patch.setattr(train, "open_experiment", lambda *_: contextlib.nullcontext(experiment))
                patch.setattr(train, "make_evaluator", self._stop)
                restore = train.restore
                patch.setattr(train, "restore", lambda *given: self._keep(restore(*given)))
                with contextlib.suppress(Reached):
                    train.main(experiment.config, folder)
                if self.reached:
                    patch.setattr(curves, "save_figure", lambda figure, path: curves.plt.close(figure))
                    self._go_on(experiment)
        finally:
            logging.getLogger("nft_jax").removeHandler(handler)
            self.said = said.getvalue()

    def _stop(self, *_):
        self.reached = True
        raise Reached

    def _keep(self, restored):
        self.done, self.state = restored
        return restored

    def _go_on(self, experiment):
        """Reads and writes as the loop does before its first step, and after its last."""
        config, tables = experiment.config, experiment.dataset.tables
        held_out = {name: table for name, table in tables.items() if name != "train"}
        count = dict.fromkeys(held_out, config.evaluation.max_problems)
        evaluator = Evaluator(None, held_out, count, 1 + config.evaluation.answers_per_problem, 8, None)
        workdir = train.Workdir(self.folder)
        with contextlib.suppress(Reached):
            train.load_answers(workdir, evaluator, self.done, "base_answers.npz", None, self._stop)
        with train.Checkpoints(self.folder, 2) as checkpoints:
            loop = train.Trainer.__new__(train.Trainer)
            vars(loop).update(experiment=experiment, folder=workdir, checkpoints=checkpoints, done=self.done)
            loop.begin()
            with TensorBoard(self.folder / "tensorboard", self.done, loop._read_rows()):
                pass
        with contextlib.suppress(FileNotFoundError):  # nothing to draw yet, where the run begins anew
            curves.draw(self.folder, "")


def is_remade(name: str, folder: Path, whole: Path) -> bool:
    """Returns whether a damaged thing is again what it was, or is removed because the run will write it at its end."""
    there, proper = folder / name, whole / name
    if not there.exists():
        return name == "result.json"
    if there.suffix == ".json":
        with contextlib.suppress(ValueError):
            return json.loads(there.read_bytes()).keys() == json.loads(proper.read_bytes()).keys()
        return False
    return (
        there.is_dir()
        and proper.is_dir()
        and {one.name for one in there.iterdir()} == {one.name for one in proper.iterdir()}
    )


def judge(experiments, folder: Path, whole: Path, steps: int, what: str, names: tuple[str, ...], digests: dict) -> str:
    """Returns the outcome of a start; fails for a traceback, and for what is read in silence."""
    try:
        start = Start(experiments[steps], folder)
    except (ValueError, OSError) as error:
        assert any(name in str(error) for name in names), (what, str(error))
        return "refused"
    name = what.rpartition(": ")[2]
    if any(part in start.said for part in names):
        return "said"
    if is_remade(name, folder, whole):
        return "made anew"
    if not start.reached:
        # Of a finished run, the results and the settings of its last checkpoint are read, and nothing else.
        assert "nothing to do" in start.said and name.startswith(NOT_READ), (what, start.said)
        return "finished, and not read"
    assert name.startswith("checkpoints/"), (what, start.said)
    assert make_digests(start.state) == digests, what
    return "without effect"


@pytest.mark.parametrize("count", [50, pytest.param(COUNT, marks=pytest.mark.slow)])
def test_train_takes_no_damaged_folder_in_silence(experiments, whole, tmp_path, capsys, count):
    drawn, outcomes, faults = random.Random(SEED), {kind: Counter() for kind in KINDS}, []
    proper = Start(experiments[STEPS + 2], shutil.copytree(whole.path, tmp_path / "proper"))
    assert proper.reached and proper.done == STEPS
    assert ".damaged" not in proper.said and "no line of" not in proper.said, proper.said
    digests = make_digests(proper.state)
    for number in range(count):
        folder = shutil.copytree(whole.path, tmp_path / "one", symlinks=True)
        damage = damage_folder(folder, drawn)
        steps = STEPS + 2 * (number % 2)
        try:
            outcome = judge(experiments, folder, whole.path, steps, damage.what, damage.names, digests)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
            faults.append(f"folder {number}, {steps} steps, {damage.what}: {outcome[:600]}")
        outcomes[damage.what.partition(": ")[0]][outcome] += 1
        shutil.rmtree(folder)
    assert faults == [], "\n".join(faults)
    with capsys.disabled():
        print(f"\n{count} damaged folders (seed {SEED}): no traceback, none taken in silence")
        for kind, counts in outcomes.items():
            print(f"  {kind}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    assert count < COUNT or all(outcomes.values())


def test_inspect_folder_says_what_this_user_can_not_read(whole):
    """As another user where this one is root, whom no permission stops."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = shutil.copytree(whole.path, Path(place) / "run")
        if root := os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, 65534, 65534)
        for name in ("metrics.jsonl", "checkpoints", "fingerprint.json"):
            mode = (folder / name).stat().st_mode
            (folder / name).chmod(0)
            try:
                if root:
                    os.seteuid(65534)
                with pytest.raises(ValueError, match=f"{name} can't be read and written by this user"):
                    inspect_folder(folder, SCORES)
            finally:
                if root:
                    os.seteuid(0)
            (folder / name).chmod(mode)
        assert inspect_folder(folder, SCORES) == []


@pytest.mark.slow
def test_train_ends_well_or_refuses_in_every_damaged_folder(whole, folder, tmp_path, capsys):
    """Whole processes in some of the folders; one of each kind of damage."""
    drawn, codes = random.Random(SEED), Counter()
    for kind in KINDS:
        workdir = shutil.copytree(whole.path, tmp_path / kind, symlinks=True)
        name, _ = KINDS[kind](workdir, drawn)
        process = Command(config_of(STEPS + 2), workdir, folder)
        code = process.end()
        assert code in (0, 1, 2), (kind, name, process.printed)
        assert "Traceback" not in process.printed, (kind, name, process.printed)
        if code == 0:
            assert Ran(workdir).rows("metrics.jsonl")[-1]["step"] == STEPS + 2, (kind, name)
        codes[code] += 1
    with capsys.disabled():
        print(f"\n{len(KINDS)} runs in damaged folders (seed {SEED}), by exit code: {dict(codes)}")


def test_read_lines_of_an_older_version_are_drawn(tmp_path):
    """A value that no line has is left out of the picture."""
    rows = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.5, "rate_histogram": [1, 0]}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_lines(tmp_path)
    picture, _ = curves.draw(tmp_path, "")
    assert picture.exists()
