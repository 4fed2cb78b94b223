"""State that is not finite: it replaces no checkpoint, is refused wherever it is read, and ends a run."""

import io
import json
import re
from contextlib import redirect_stdout

import jax
import numpy as np
import pytest

from helpers.checkpoints import RUN, any_run, assert_restored, filled, listing, save
from helpers.experiments import grader, small, write_graders
from helpers.model_folders import random_tensors, write_model, write_tokenizer
from helpers.runs import Around, Command, Ran
from nft_jax import sft, train
from nft_jax.compare.__main__ import run_study
from nft_jax.evaluate import evaluate
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.weights import load_weights, save_weights
from nft_jax.run.workdir import read_lines


def spoil(state, part="weights", value=np.nan):
    """Returns a state with one number of one array of a part that is not finite."""
    leaves, tree = jax.tree.flatten(getattr(state, part))
    place = max(range(len(leaves)), key=lambda i: leaves[i].size)
    leaves[place] = leaves[place].at[(1,) * leaves[place].ndim].set(value)
    return state._replace(**{part: jax.tree.unflatten(tree, leaves)})


# Checkpoints.


@pytest.mark.parametrize("part", ["weights", "optimizer_state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_checkpoints_save_nothing_that_is_not_finite(simple, tmp_path, part, value):
    save(tmp_path, simple, 1, 2)
    before = listing(tmp_path)
    with Checkpoints(tmp_path, 1) as checkpoints:
        with pytest.raises(
            FloatingPointError, match=rf"step 3 is not saved: NaN or inf in {part}.*inner.kernel \(1 of"
        ):
            checkpoints.save(3, spoil(filled(simple, 3), part, value), RUN)
        checkpoints.wait()
        assert listing(tmp_path) == before
        assert_restored(checkpoints.restore(simple, any_run), 2, simple)


@pytest.fixture
def unguarded(simple, tmp_path, monkeypatch):
    """A folder whose newest checkpoint, as an older version wrote it, is not finite; its weights alone neither."""
    save(tmp_path, simple, 1)
    bad = spoil(filled(simple, 2))
    with monkeypatch.context() as patch:
        patch.setattr("nft_jax.run.checkpoint.find_nonfinite", lambda _: [])
        with Checkpoints(tmp_path, 9) as checkpoints:
            checkpoints.save(2, bad, RUN)
    save_weights(tmp_path / "alone", bad.weights)
    return tmp_path


@pytest.mark.parametrize("by", ["restore", "restore_weights", "load_weights", "load_weights alone"])
def test_checkpoints_that_are_not_finite_are_refused_by_name(simple, unguarded, by):
    before = listing(unguarded)
    with Checkpoints(unguarded) as checkpoints, pytest.raises(ValueError) as raised:
        if by == "restore":
            checkpoints.restore(simple, any_run)
        elif by == "restore_weights":
            checkpoints.restore_weights(2, simple.weights)
        else:
            load_weights(unguarded / "alone" if "alone" in by else unguarded, simple.weights)
    message = str(raised.value)
    assert "NaN or inf in " in message and "inner.kernel (1 of 1,200 numbers)" in message
    assert str(unguarded) in message
    assert "\n" not in message and "config.model" not in message
    assert ("step 1 is older" in message) == ("alone" not in by)
    assert listing(unguarded) == before


# Model folders.

NAME = "model.layers.1.mlp.up_proj.weight"
SIZES = {
    "data__train": "arithmetic",
    "prompts_per_step": 4,
    "warm_start__arithmetic_examples": 64,
    "warm_start__examples_per_update": 8,
    "evaluation__max_problems": 2,
    "evaluation__problems_per_batch": 2,
    "optimizer__schedule": "constant",
    "compare__losses": "nft",
    **{f"model__{name}": value for name, value in {"width": 256, "heads": 8, "head_size": 32, "layers": 4}.items()},
    **{"model__mlp_width": 1024, "model__tied_embedding": True},
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """A model folder with one number that is not finite, and a tokenizer."""
    tensors = random_tensors()
    tensors[NAME][2, 5] = np.inf
    return write_tokenizer(write_model(tmp_path_factory.mktemp("spoiled"), tensors))


def compile_nothing(*_, **__):
    pytest.fail("something is compiled")


COMMANDS = {
    "train": (train.main, "nft_jax.train.make_evaluator", {}),
    "train after a warm start": (train.main, "nft_jax.sft._compile_update", {"warm_start__steps": 2}),
    "train with adapters": (train.main, "nft_jax.train.make_evaluator", {"lora__rank": 2}),
    "sft": (sft.main, "nft_jax.sft._compile_update", {"warm_start__steps": 2}),
    "evaluate": (evaluate, "nft_jax.evaluate.make_evaluator", {}),
    "compare": (run_study, "nft_jax.compare.study.make_evaluator", {}),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_a_model_folder_before_they_compile(spoiled, tmp_path, monkeypatch, command):
    main, compiles, changes = COMMANDS[command]
    monkeypatch.setattr(compiles, compile_nothing)
    config = small(model__path=str(spoiled), **SIZES | changes)
    with pytest.raises(ValueError) as raised:
        main(config, tmp_path / "run")
    message = str(raised.value)
    assert message.startswith(f"{spoiled}: NaN or inf in {NAME} (1 of 1,536 numbers)")
    assert "\n" not in message


# A run.


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run whose KL term is NaN from step 3 on; returns its folder, what it printed, and its error.

    Its disk is so slow that a checkpoint is complete only where the run waits for it.
    """
    folder = write_graders(tmp_path_factory.mktemp("broken"))
    compile_step, wait, waits = train.compile_step, Checkpoints.wait, []

    def wait_once_more(checkpoints):
        waits.append(wait(checkpoints))

    def compile_broken(*arguments):
        before = lambda number, state: spoil(state, "reference") if number == 3 else state  # noqa: E731
        return Around(compile_step(*arguments), before)

    config = small(
        steps=9,
        loss__kl_weight=0.1,
        verify__grader=grader("coin"),
        evaluation__max_problems=4,
        evaluation__problems_per_batch=4,
        evaluation__answers_per_problem=1,
        record__checkpoint_every_steps=2,
        record__keep_checkpoints=1,
    )
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), pytest.raises(FloatingPointError) as raised:
        patch.setattr(train, "compile_step", compile_broken)
        patch.setattr(Checkpoints, "wait", wait_once_more)
        patch.setattr(Checkpoints, "latest", property(lambda each: max(each.steps) if waits else None))
        train.main(config, folder / "run")
    return folder / "run", printed.getvalue(), str(raised.value)


def test_run_ends_after_steps_whose_updates_are_not_finite(broken):
    folder, printed, error = broken
    rows = read_lines(folder / "metrics.jsonl")
    assert [(row["step"], row["updates_nonfinite"]) for row in rows][:5] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert rows[-1]["step"] <= 6  # the device is a step ahead
    assert printed.count("1 of 1 updates not finite") == len(rows) - 2
    lines = error.splitlines()
    words = r"no update of the last [34] steps was finite \(config.record.nonfinite_steps=3\)"
    assert re.match(f"{folder}: {words}", lines[0])
    assert lines[1].startswith(f"the last good checkpoint: step 2 ({folder}/checkpoints/2); to go on from its weights")
    command = f"--config={folder}/config.json --workdir={folder}_again --config.base={folder}"
    assert lines[1].endswith(f"python -m nft_jax.train {command} --config.optimizer.learning_rate=0.0001")


def test_run_that_is_not_finite_replaces_no_checkpoint(broken):
    folder, _, _ = broken
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [2]


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_run_that_is_not_finite_writes_json(broken):
    for path in broken[0].rglob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=refuse)


# The same by a command.

LOSS = """
import jax.numpy as jnp

def mine(logp_BT, batch):
    return jnp.where(batch.answer_BT >= 0, SCALE * logp_BT, 0.0)
"""


@pytest.mark.slow
def test_a_command_ends_with_code_1_where_updates_are_not_finite(tmp_path):
    """A run of 4 good steps goes on with a loss that has become NaN, so that this begins at step 5."""
    folder = write_graders(tmp_path)
    changes = {"loss__name": "loss_of_user:mine", "verify__grader": grader("coin")}
    changes |= {"record__allow_other_code": True, "record__checkpoint_every_steps": 1, "evaluation__max_problems": 2}
    for scale, steps, code in (("1.0", 4, 0), ("jnp.nan", 9, 1)):
        (folder / "loss_of_user.py").write_text(LOSS.replace("SCALE", scale))
        process = Command(small(steps=steps, **changes), tmp_path / "run", folder)
        assert process.end() == code, process.printed
    printed = process.printed
    assert "Traceback" not in printed
    words = r": no update of the last [34] steps was finite \(config.record.nonfinite_steps=3\)"
    assert re.search(f"^error: {tmp_path}/run{words}", printed, re.MULTILINE), printed
    assert f"the last good checkpoint: step 4 ({tmp_path}/run/checkpoints/4); to go on from its weights" in printed
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest == 4
    assert all(json.dumps(row, allow_nan=False) for row in Ran(tmp_path / "run").rows("metrics.jsonl"))
