"""The loop over the steps, and the table at its end."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest

from helpers.experiments import small
from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers
from nft_jax.run.compilations import Compilations
from nft_jax.run.health import NonFiniteUpdates
from nft_jax.run.watchdog import Watchdog
from nft_jax.trainer import Trainer, tabulate_answers


class Words:
    """A tokenizer in which id i is a word of i letters."""

    def decode(self, ids):
        return " ".join("x" * i for i in ids)


@pytest.mark.parametrize("letters", [1, 40, 400])
def test_tabulate_answers_marks_answers_of_any_length(letters):
    problems = [Problem(f"problem {i} " + "?" * letters, str(i)) for i in range(13)]
    table = PromptTable(None, None, [p.answer for p in problems], [], problems, 0)
    correct_EK = np.ones((13, 1), bool)
    shape = (13, 1)
    token_EKT = np.full((*shape, 2), letters)
    base, final = (
        Answers(
            token_EKT,
            np.zeros(shape),
            np.full(shape, 2),
            np.zeros(shape, bool),
            np.zeros(shape, np.int32),
            correct,
            np.zeros(shape, np.int32),
        )
        for correct in (correct_EK & False, correct_EK)
    )
    header, *lines = tabulate_answers(table, Words(), {"base": base, "final": final}).splitlines()
    assert header.split() == ["problem", "base", "final", "reference"]
    assert len(lines) == 6
    for line, index in zip(lines, (0, 2, 5, 7, 10, 12), strict=True):
        assert line.startswith(f"problem {index} ")
        assert line.endswith(f"  {index}")
        assert (line.count("✗"), line.count("✓")) == (1, 1)
        assert len(line) < 200


class Loop(Trainer):
    """The loop over three steps, which compiles something in one part (`where`) of the second."""

    def __init__(self, where, compilations):
        self.where, self.compilations, self.inputs = where, compilations, None
        self.state = SimpleNamespace(weights=None, saved_parts={})
        config = small(steps=3, record__checkpoint_every_steps=1, evaluation__every_steps=1)
        self.experiment = SimpleNamespace(config=config)
        self.nonfinite = NonFiniteUpdates(3)
        self.fingerprint, self.folder, self.step, self.done = {}, SimpleNamespace(push=lambda: None), 0, 0
        nothing = lambda *_: None  # noqa: E731
        self.checkpoints = SimpleNamespace(save=lambda *_: self.at("save"), check=nothing, wait=nothing)
        self.report_step = nothing
        self.prepare_record = lambda step, record: record
        self._answers = lambda *_: self.at("evaluation")
        self._report_answers = nothing

    def at(self, part):
        if self.where == part and self.step == 2:
            jax.jit(lambda x: x + 1)(np.ones(7, np.float32))

    def program(self, state, prompts):
        self.step += 1
        self.at("step")
        return state, Last(None)


class Last(NamedTuple):
    """The one field of a record that the loop reads."""

    last: None


@pytest.mark.parametrize("where", ["step", "evaluation", "save"])
def test_trainer_steps_report_compilations_except_of_saving(where, capsys):
    stop_signal = SimpleNamespace(is_requested_anywhere=lambda: False)
    with Compilations() as compilations, Watchdog(10, 60, str) as watchdog:
        compilations.finish()
        Loop(where, compilations)._steps(stop_signal, watchdog)
    printed = capsys.readouterr().err
    assert printed.count("step 2: jit(<lambda>) was compiled again") == printed.count("compiled") == (where != "save")
