"""The supervised phase as a program: its files, and how it ends, resumes and refuses."""

import contextlib
import dataclasses
import io
import json
import random
import shutil
import signal
import time

import numpy as np
import pytest

from helpers.experiments import assert_same, build_on_mesh, compilations, on_host, small, write_teacher
from helpers.runs import MEASURED, Command, Ran
from nft_jax import sft
from nft_jax.export import export
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.stopping import StopSignal
from nft_jax.run.weights import load_weights
from nft_jax.run.workdir import Workdir

BATCH = 16
UPDATES = 30


def warm(steps, **changes):
    every = {"validate_every_steps": 10, "checkpoint_every_steps": 10, "validation_examples": 40}
    return small(
        warm_start__steps=steps,
        warm_start__examples_per_update=BATCH,
        warm_start__arithmetic_examples=200,
        warm_start__incorrect_share=0.5,
        warm_start__optimizer__learning_rate=1e-2,
        warm_start__optimizer__warmup_updates=0,
        # Several examples to a row, several rows to a micro-batch, and a last one that is not full.
        packing__row_tokens=50,
        packing__rows_per_micro_batch=3,
        record__keep_checkpoints=9,
        **{f"warm_start__{name}": value for name, value in every.items()},
        **changes,
    )


def run(config, folder):
    """Returns (experiment, weights, losses) of a warm start in a folder that holds the lines of an older one."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": -1.0}) + "\n")
    experiment = build_on_mesh(config, folder)
    weights = on_host(sft.warm_start(experiment, Workdir(folder)))
    rows = Ran(folder).rows("metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, config.warm_start.steps + 1))
    return experiment, weights, np.array([row["loss"] for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sft")


@pytest.fixture(scope="module")
def trained(folder):
    return run(warm(UPDATES), folder / "one")


def numbers(ran):
    """Everything that a phase writes, without the times."""
    rows = [{name: row[name] for name in row.keys() - MEASURED} for row in ran.rows("metrics.jsonl")]
    return rows, ran.rows("evaluation.jsonl"), ran.json("best.json")


def test_warm_start_lowers_the_loss(trained, folder):
    _, _, losses = trained
    assert np.isfinite(losses).all()
    assert losses[-5:].mean() < 0.6 * losses[0]
    rows, held_out, best = numbers(Ran(folder / "one"))
    # 30 updates of 16 of 200 examples.
    assert rows[-1]["epoch"] == pytest.approx(2.4)
    assert [row["step"] for row in held_out] == [0, 10, 20, 30]
    assert all(row["examples"] == 40 and 0 < row["loss_error"] < row["loss"] for row in held_out)
    lowest = min(held_out[1:], key=lambda row: row["loss"])
    expected = {"step": lowest["step"], "score": "loss", "value": lowest["loss"], "error": lowest["loss_error"]}
    assert best == expected
    assert lowest["loss"] < 0.6 * held_out[0]["loss"]


def test_warm_start_has_the_same_losses_on_eight_devices(trained, folder):
    _, _, losses = run(warm(3, mesh__data=4, mesh__tensor=2), folder / "eight")
    np.testing.assert_allclose(losses, trained[2][:3], rtol=1e-5)
    first = [Ran(folder / name).rows("evaluation.jsonl")[0] for name in ("one", "eight")]
    assert first[1] == pytest.approx(first[0], rel=1e-5)


def test_warm_start_saves_weights_for_load_weights(trained, folder):
    experiment, weights, _ = trained
    assert_same(weights, on_host(load_weights(folder / "one", experiment.model.abstract_weights())))
    with pytest.raises(
        FileNotFoundError, match="config.base=.*elsewhere: neither a folder 'weights' nor a checkpoint in it"
    ):
        load_weights(folder / "elsewhere", weights)


# Ends and resumes.


def left_by_a_kill(whole, folder, step):
    """Makes the folder of a phase killed after saving `step`, while it wrote a line."""
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "weights")
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[: step + 4]) + lines[step + 4][:20])


@pytest.mark.parametrize("step", [10, UPDATES])
def test_warm_start_resumes_bit_for_bit_after_a_kill(trained, folder, step, capsys):
    experiment, weights, _ = trained
    killed = folder / f"killed after {step}"
    left_by_a_kill(folder / "one", killed, min(step, UPDATES - 5))
    if step == UPDATES:
        shutil.copytree(folder / "one" / "checkpoints" / "30", killed / "checkpoints" / "30")
        shutil.copy(folder / "one" / "metrics.jsonl", killed)
    assert_same(on_host(sft.warm_start(experiment, Workdir(killed))), weights)
    assert f"resumed from step {step} in {killed}" in capsys.readouterr().out
    assert numbers(Ran(killed)) == numbers(Ran(folder / "one"))
    assert_same(Ran(killed).checkpoint(30), Ran(folder / "one").checkpoint(30))


def test_warm_start_of_adapters_resumes_bit_for_bit_after_a_kill(folder):
    whole, killed = folder / "adapters", folder / "adapters, killed"
    experiment, weights, _ = run(warm(20, lora__rank=2), whole)
    left_by_a_kill(whole, killed, 10)
    assert_same(on_host(sft.warm_start(experiment, Workdir(killed))), weights)
    assert numbers(Ran(killed)) == numbers(Ran(whole))
    assert_same(on_host(sft.load_warm_start(experiment, killed)), weights)
    held_out = Ran(whole).rows("evaluation.jsonl")
    assert held_out[-1]["loss"] < held_out[0]["loss"]


def test_warm_start_resumes_where_a_teacher_distills_afterwards(folder):
    teacher, whole, killed = folder / "teacher", folder / "taught", folder / "taught, killed"
    experiment, weights, _ = run(warm(20, distillation__teacher=str(write_teacher(teacher))), whole)
    shutil.rmtree(teacher)  # nothing in this phase reads it
    left_by_a_kill(whole, killed, 10)
    assert_same(on_host(sft.warm_start(experiment, Workdir(killed))), weights)
    assert numbers(Ran(killed)) == numbers(Ran(whole))


@pytest.mark.parametrize("at", [4, pytest.param(UPDATES, marks=pytest.mark.slow)])
def test_warm_start_saves_and_ends_with_code_75_when_asked(trained, folder, at, monkeypatch, capsys):
    experiment, weights, _ = trained
    asked = folder / f"asked at {at}"
    asked.mkdir()
    steps = []

    def is_requested_anywhere(signal):
        steps.append(1)
        return len(steps) >= at

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "is_requested_anywhere", is_requested_anywhere)
        with pytest.raises(SystemExit, match="75"):
            sft.warm_start(experiment, Workdir(asked))
    with Checkpoints(asked) as checkpoints:
        assert checkpoints.latest == at
    words = f"stopped after step {at}, which is saved; the same command resumes from step {at} ({asked}/checkpoints"
    assert (words in capsys.readouterr().err) == (at < UPDATES)
    with compilations() as seen:
        assert_same(on_host(sft.warm_start(experiment, Workdir(asked))), weights)
    assert (seen == []) == (at == UPDATES)
    assert numbers(Ran(asked)) == numbers(Ran(folder / "one"))


def test_warm_start_refuses_another_run(trained, folder):
    experiment, _, _ = trained
    config, dataset = experiment.config, experiment.dataset
    changed = dataset.examples._replace(response_QT=dataset.examples.response_QT + 1)
    warm_start = config.warm_start
    optimizer = dataclasses.replace(warm_start.optimizer, learning_rate=0.5)
    others = {
        "config.warm_start.optimizer.learning_rate: the run has 0.01, given 0.5": {
            "config": dataclasses.replace(config, warm_start=dataclasses.replace(warm_start, optimizer=optimizer))
        },
        "the worked training problems: the run has those of digest": {"dataset": dataset._replace(examples=changed)},
    }
    before = (folder / "one" / "fingerprint.json").read_bytes()
    for words, changes in others.items():
        with compilations() as seen, pytest.raises(ValueError, match=f"holds another run:\n  {words}"):
            sft.warm_start(dataclasses.replace(experiment, **changes), Workdir(folder / "one"))
        assert seen == []
    assert (folder / "one" / "fingerprint.json").read_bytes() == before


def test_main_of_a_finished_phase_only_says_so(trained, folder, capsys, monkeypatch):
    monkeypatch.setattr(sft, "build_experiment", build_on_mesh)
    workdir = folder / "one"
    before = {name: (workdir / name).read_bytes() for name in ("metrics.jsonl", "evaluation.jsonl", "best.json")}
    with compilations() as seen:
        sft.main(warm(UPDATES), workdir)
    assert seen == []
    assert f"finished before, nothing to do; weights: {workdir}/weights" in capsys.readouterr().out
    assert before == {name: (workdir / name).read_bytes() for name in before}


def test_main_leaves_a_workdir_for_export(trained, folder, monkeypatch):
    monkeypatch.setattr(sft, "build_experiment", build_on_mesh)
    with contextlib.redirect_stdout(io.StringIO()):
        sft.main(warm(UPDATES), folder / "one")
    words = export(warm(UPDATES), folder / "one", folder / "exported")
    assert f"step {UPDATES} of {folder / 'one'}" in words
    assert (folder / "exported" / "config.json").exists()


@pytest.mark.slow
def test_main_resumes_bit_for_bit_after_signals(folder):
    """The command itself: killed, stopped, and run to its end."""
    config = warm(400)
    whole = Command(config, folder / "whole", folder, "sft")
    assert whole.end() == 0, whole.printed
    drawn = random.Random(0)
    ends = (signal.SIGKILL, -signal.SIGKILL, 30), (signal.SIGHUP, 75, 120), (signal.SIGTERM, 75, 200), (None, 0, 401)
    for number, code, count in ends:
        process = Command(config, folder / "ended", folder, "sft")
        process.wait(lambda process=process, count=count: len(process.run.steps) >= count)
        time.sleep(drawn.uniform(0, 0.1))
        assert process.end(number) == code, process.printed
    assert "resumed from step" in process.printed
    ended = [Ran(folder / name) for name in ("whole", "ended")]
    assert numbers(ended[0]) == numbers(ended[1])
    assert_same(ended[0].checkpoint(400), ended[1].checkpoint(400))


def test_main_refuses_a_warm_start_without_updates(tmp_path):
    with pytest.raises(ValueError, match="config.warm_start.steps=0: nothing to do"):
        sft.main(small(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
