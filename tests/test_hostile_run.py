"""A run on hostile data: what train, evaluate and report print holds no control character."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from helpers.experiments import small
from helpers.hostile_texts import CONTROLS, MARKS, draw_hostile
from helpers.tokenizer_kinds import KINDS
from nft_jax import evaluate, train
from nft_jax.printing import show_control_characters, visible
from nft_jax.report import __main__ as report

GRADER = '''
def grade(response, answer):
    """Judges by a coin, and raises for some with what a terminal obeys."""
    if len(response) % 3 == 1:
        raise ValueError("\\x1b[31mno verdict\\u202e " + response)
    return len(response) % 3 == 0
'''


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the commands print, by command, through the door."""
    folder = tmp_path_factory.mktemp("hostile")
    KINDS["byte-level BPE"](folder)
    evil = "".join(CONTROLS).replace("\x00", "")
    texts = draw_hostile(5, 60, (*MARKS, *CONTROLS, "1 + 1 =", "\\boxed{2}"))
    for split, part in (("train", texts[:40]), ("test" + evil, texts[40:46])):
        rows = [
            {"problem": text, "answer": f"2{evil}", "id": f"{n}{evil}", "solution": f"{text} \\boxed{{2}}"}
            for n, text in enumerate(part)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evil_grader.py").write_text(GRADER)
    config = small(
        steps=1,
        data__train=str(folder / "train.jsonl"),
        data__test=str(folder / f"test{evil}.jsonl"),
        data__tokenizer=str(folder),
        data__template="chat",
        data__system=f"Be brief.{evil}<|im_end|>",
        data__max_prompt_tokens=512,
        verify__grader="evil_grader:grade",
        verify__second_grader="gsm8k",
        warm_start__steps=1,
        warm_start__examples_per_update=8,
        rollout__max_answer_tokens=128,
        evaluation__max_problems=3,
        evaluation__answers_per_problem=2,
    )
    commands = {
        "train": lambda: train.main(config, folder / "run"),
        "evaluate": lambda: evaluate.evaluate(config, folder / "run"),
        "report": lambda: report.main(config, folder / "run"),
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(report, "flags", SimpleNamespace(FLAGS=SimpleNamespace(against=None)))
        for name, command in commands.items():
            raw = io.StringIO()
            for stream in ("stdout", "stderr"):
                patch.setattr(sys, stream, raw)
            show_control_characters()
            command()
            found[name] = raw.getvalue()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluate", "report"])
def test_a_command_prints_no_control_character_of_its_data(printed, name):
    assert printed[name] == visible(printed[name])
    assert "\\u202e" in printed[name] or name == "report"  # which prints where its files are
