"""Several processes on this machine compute what one does, stop together, and end when another is lost.

`python -m pytest tests/processes/test_processes.py -m slow -s` prints how alike 1, 2 and 4 processes are.
"""

import ast
import json
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.experiments import small
from helpers.processes import Processes, free_port, wait
from helpers.runs import Ran, untimed
from helpers.steps_of_several import GRADER, MODULE, STEPS
from nft_jax.config import to_dict
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.verifier import TRIAL

HERE = Path(__file__).parents[1] / "helpers"
# Processes × devices of each, and the mesh that they make: two shards whose sums have no order, and four.
LAYOUTS = {f"{count}x{4 // count}": (count, 4 // count, 2, 2) for count in (1, 2, 4)}
LAYOUTS |= {f"{count}x{8 // count}": (count, 8 // count, 4, 2) for count in (1, 2, 4)}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with Processes(tmp_path_factory.mktemp("processes")) as processes:
        (processes.folder / f"{MODULE}.py").write_text(GRADER)
        yield processes


# The step: whichever process has a device, the answers are the same, and so are gradients but for their rounding.


@pytest.fixture(scope="module")
def steps(processes):
    """`(run) -> (arrays, processes)`: what the steps gave in the layout that the run's name begins with; run once."""
    ended = {}

    def get(run):
        if run not in ended:
            count, devices, *mesh = LAYOUTS[run[:3]]
            words = [HERE / "steps_of_several.py", processes.folder, run, *mesh]
            started = processes.several([words] * count, devices) if count > 1 else [processes.one(words, devices)]
            assert [process.code() for process in started] == [0] * count, started[0].printed
            ended[run] = dict(np.load(processes.folder / f"{run}.npz")), started
        return ended[run]

    return get


def answers(found: dict) -> dict:
    """What was sampled and how it was judged, but for the log-probs, whose last bits are the layout's."""
    parts = ("prompt_Q", "token_QKT", "length_QK", "truncated_QK", "verdict_QK")
    return {f"{part}_{step}": found[f"{part}_{step}"] for part in parts for step in range(STEPS)}


def rows(found: dict, step: int) -> np.ndarray:
    """The answers of a step."""
    tokens = found[f"token_QKT_{step}"]
    return tokens.reshape(-1, tokens.shape[-1])


def largest_difference(one: dict, other: dict) -> float:
    """Of the first update's gradients, a tensor at a time: the largest difference against the largest element."""
    names = [name for name in one if name.startswith("gradient")]
    assert names
    assert all(np.abs(other[name]).max() > 0 for name in names)
    return max(np.abs(one[name] - other[name]).max() / np.abs(other[name]).max() for name in names)


def digests(found: dict) -> list[str]:
    return [str(found[f"digest_{step}"]) for step in range(STEPS)]


def assert_alike(found: dict, whole: dict) -> None:
    for name, value in answers(found).items():
        np.testing.assert_array_equal(value, answers(whole)[name], err_msg=name)
    assert largest_difference(found, whole) <= 1e-5
    assert len(set(digests(found))) == STEPS


def test_step_of_two_processes_equals_that_of_one(steps):
    assert_alike(steps("2x2 first")[0], steps("1x4 first")[0])


def test_step_grades_each_answer_once_in_the_process_that_has_it(steps, processes):
    found, pair = steps("2x2 first")
    graded = [
        Counter(
            ast.literal_eval(line)
            for path in processes.folder.glob(f"graded_{process.pid}_*")
            for line in path.read_text().splitlines()
        )
        for process in pair
    ]
    owned = [Counter(texts) for texts in owned_answers(found, processes.folder / "2x2 first")]
    assert all(owned)
    assert owned[0] != owned[1]
    # Each process tries its grader on one answer first.
    assert graded == [counts + Counter(TRIAL[:1]) for counts in owned]


def owned_answers(found: dict, folder: Path) -> list[list[str]]:
    """The texts of all answers that were graded, by the process whose devices have their rows."""
    from nft_jax.data.tokenizer import load_tokenizer

    tokenizer, owned = load_tokenizer(folder / "tokenizer" / "arithmetic.model"), [[], []]
    for step in range(STEPS):
        token_BT = rows(found, step)
        length_B, truncated_B = (found[f"{part}_{step}"].reshape(-1) for part in ("length_QK", "truncated_QK"))
        for b, tokens in enumerate(token_BT):
            if not truncated_B[b]:
                owned[b * 2 // len(token_BT)] += tokenizer.decode_batch([tokens[: length_B[b]].tolist()])
    return owned


@pytest.mark.slow
def test_step_of_four_processes_equals_that_of_one_and_has_the_same_bits_twice(steps, capsys):
    layouts, lines = ("1x8", "2x4", "4x2"), []
    found = {run: steps(run)[0] for layout in layouts for run in (f"{layout} first", f"{layout} second")}
    for layout in layouts:
        one, again, whole = found[f"{layout} first"], found[f"{layout} second"], found["1x8 first"]
        same = sum((rows(one, step) == rows(whole, step)).all(axis=1).sum() for step in range(STEPS))
        lines.append(
            f"{layout}  {same} of {STEPS * len(rows(one, 0))}  {largest_difference(one, whole):.1e}  "
            f"{digests(one)[-1]}  {digests(again)[-1]}"
        )
        assert_alike(one, whole)
        assert digests(one) == digests(again)
    with capsys.disabled():
        print("\nprocesses x devices; against 1x8: same answers, largest gradient difference; weights of two runs")
        print("\n".join(lines))


# The run: `python -m nft_jax.train` in two processes, on one folder, started again after each end.

RUN = {
    "steps": 8,
    "mesh__data": 4,
    "model__layers": 1,
    "selection__max_rounds": 1,
    "verify__grader": f"{MODULE}:coin",
    "verify__seconds_per_answer": 3600.0,
    "verify__seconds_per_round": 3600.0,
    "warm_start__steps": 2,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 64,
    "evaluation__max_problems": 8,
    "evaluation__problems_per_batch": 8,
    "evaluation__answers_per_problem": 1,
    "record__rollouts_every_steps": 2,
    "record__checkpoint_every_steps": 2,
    "record__grace_seconds": 120.0,
}
# Seconds within which a process ends when another one is gone. Its collective fails at once, on CPUs; but if it waits
# for the other to save, heartbeats tell.
GONE = 90


def command(processes, module="train", workdir="run", **changes):
    """The words of a program with the run's config."""
    file = processes.folder / f"{module}_{'_'.join(changes) or 'as_it_is'}.json"
    # A process that was started with the same file may be about to read it: it must never find half of it.
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(to_dict(small(**RUN | changes))))
    unfinished.replace(file)
    return [f"nft_jax.{module}", f"--config={file}", f"--workdir={processes.folder / workdir}"]


@pytest.fixture(scope="module")
def unlike(processes):
    """Processes that can't run together, by their fault; all start at once, and wait while others compute."""
    run, other = command(processes, workdir="refused"), command(processes, workdir="refused", steps=9)
    here, there = command(processes, workdir="here"), command(processes, workdir="there")
    unwritable = command(processes, workdir=f"{MODULE}.py/run")

    def alone(process):
        # In a folder of its own: process 0 of each pair holds its folder while it waits for the other.
        given = [f"--distributed=127.0.0.1:{free_port()}", "--processes=2", f"--process={process}", "--wait_seconds=6"]
        return [processes.one([*command(processes, workdir=f"refused_{process}"), *given])]

    return {
        "config": processes.tasks([[*run, "--distributed=auto"], [*other, "--distributed=auto"]]),
        "workdir": processes.several([here, there]),
        "unwritable": processes.several([unwritable, unwritable]),
        "missing": alone(0),
        "nobody": alone(1),
        "nowhere": [processes.one([*run, "--distributed=auto"])],
    }


@pytest.fixture(scope="module")
def bereft(processes):
    """Pairs that wait without a collective and lose one process, by SIGKILL or by an abort."""
    pairs, began = {}, {}
    for what in ("killed 0", "killed 1", "aborted 1"):
        pairs[what] = processes.several([[HERE / "waits_for_ever.py", processes.folder, what]] * 2)
    for what, pair in pairs.items():
        wait(lambda what=what: all((processes.folder / f"{what}_{process}").exists() for process in (0, 1)), pair)
        began[what] = time.monotonic()
        victim = int(what[-1])
        if what.startswith("killed"):
            pair[victim].kill(signal.SIGKILL)
        else:
            (processes.folder / f"{what}_abort_{victim}").touch()
    return pairs, began


@pytest.fixture(scope="module")
def run_of_two(processes):
    """The folder of the run that is started again and again."""
    return Ran(processes.folder / "run")


def saved(run: Ran) -> list[int]:
    with Checkpoints(run.path) as checkpoints:
        return checkpoints.steps


@pytest.fixture(scope="module")
def signal_one(processes, run_of_two):
    """`(count, number) -> processes`: starts the run, and signals process 1 in the midst of the step after `count`.

    What is to be saved until then is complete.
    """

    def start(count, number):
        hold, due = processes.folder / "hold", run_of_two.path / "checkpoints" / f"{count // 2 * 2}"
        hold.write_text(f"{count}")
        pair = processes.several([command(processes)] * 2, 2)
        wait(lambda: len(run_of_two.steps) >= count and due.exists(), pair)
        pair[1].kill(number)
        hold.unlink()
        return pair

    return start


@pytest.fixture(scope="module")
def stopped(signal_one, run_of_two, unlike, bereft):
    """Stops process 1 alone; both processes, and the steps saved then."""
    pair = signal_one(2, signal.SIGTERM)
    return pair, [process.code() for process in pair], saved(run_of_two), run_of_two.steps


@pytest.fixture(scope="module")
def killed(signal_one, run_of_two, stopped):
    """The same command; process 1 is killed in the midst of a step. Both, their codes, and how long the other took."""
    pair = signal_one(stopped[2][-1] + 2, signal.SIGKILL)
    began = time.monotonic()
    codes = [process.code() for process in pair]
    return pair, codes, time.monotonic() - began, saved(run_of_two)


@pytest.fixture(scope="module")
def finished(processes, killed):
    """The same command, left alone."""
    pair = processes.several([command(processes)] * 2, 2)
    return pair, [process.code() for process in pair]


def test_train_saves_the_same_step_in_all_processes_when_one_is_stopped(stopped):
    pair, codes, steps, lines = stopped
    assert codes == [75, 75], pair[0].printed + pair[1].printed
    assert steps[-1] == lines[-1] < RUN["steps"]
    for process in pair:
        assert f"stopped after step {steps[-1]}, which is saved" in process.printed
    assert "SIGTERM: waiting" in pair[1].printed
    assert "SIGTERM: waiting" not in pair[0].printed


def test_train_ends_with_75_when_the_other_process_is_killed(killed):
    pair, codes, seconds, steps = killed
    assert codes == [75, -signal.SIGKILL], pair[0].printed
    assert seconds < GONE
    assert "another process is gone" in pair[0].printed
    assert f"the same command resumes from step {steps[-1]} (" in pair[0].printed
    assert "Traceback" not in pair[0].printed


def test_train_resumes_from_the_saved_step(stopped, killed):
    step = stopped[2][-1]
    assert f"resumed from step {step} in" in killed[0][0].printed
    assert f"{step + 1}/{RUN['steps']} " in killed[0][0].printed
    assert f"{step}/{RUN['steps']} " not in killed[0][0].printed


def test_check_devices_lets_process_0_alone_print(stopped):
    first, second = (process.printed for process in stopped[0])
    assert "waiting for 2 processes at 127.0.0.1:" in first
    assert "2 processes, 4 devices: 2 × cpu each" in first
    assert "warm start: 2 updates" in first
    assert all(words not in second for words in ("2 processes, ", "warm start", "model ", "tok/s"))


def test_evaluate_runs_in_two_processes(processes, run_of_two, killed):
    pair = processes.several([command(processes, "evaluate")] * 2, 2)
    assert [process.code() for process in pair] == [0, 0], pair[0].printed + pair[1].printed
    (scores,) = (run_of_two.path / "evaluations" / f"step_{killed[3][-1]:06d}").glob("*.json")
    assert json.loads(scores.read_text())["score"]["problems"] == RUN["evaluation__max_problems"]
    assert "answers and scores:" in pair[0].printed
    assert "answers and scores:" not in pair[1].printed
    # One process with as many devices has the same weights and problems, and finds nothing left to do.
    alone = processes.one(command(processes, "evaluate"), 4)
    assert alone.code() == 0, alone.printed
    assert "8 of 8 problems are answered already" in alone.printed


@pytest.mark.parametrize("what", ["killed 0", "killed 1", "aborted 1"])
def test_exit_on_process_loss_ends_a_process_where_no_collective_fails(bereft, what):
    pair, victim = bereft[0][what], int(what[-1])
    codes = [process.code() for process in pair]
    assert codes[victim] == (-signal.SIGKILL if what.startswith("killed") else -signal.SIGABRT)
    assert codes[1 - victim] == 75
    last = pair[1 - victim].printed.strip().splitlines()[-1]
    assert last == "another process is gone, or can't be reached any more; run the same command again on all hosts"
    assert "gone" not in pair[victim].printed


# What can't run together is refused before anything is compiled.


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("config", ["process 1 on ", "config.steps=9, process 0 has 8\ngive all the same command"]),
        ("workdir", ["process 1 on ", "is not the folder that process 0 has"]),
        ("unwritable", ["process 0 on ", "process 1 on ", "can't be written: "]),
        ("missing", ["not all 2 processes came to 127.0.0.1:", " within 6 s: missing: process 1\n"]),
        ("nowhere", ["--distributed=auto: the environment is none of Cloud TPU, GKE, SLURM and MPI; use"]),
        ("nobody", ["process 0 can't be reached at 127.0.0.1:", " from process 1 on "]),
    ],
)
def test_roll_call_refuses_in_every_process_what_can_not_run_together(unlike, what, words):
    for process in unlike[what]:
        assert process.code() == 2, process.printed
        assert all(word in process.printed for word in words), process.printed
        assert "Traceback" not in process.printed


def test_refused_processes_leave_no_run_and_no_roll_call(unlike, processes):
    assert all(process.code() == 2 for pair in unlike.values() for process in pair)
    assert list(processes.folder.glob("refused*/config.json")) == []
    assert list(processes.folder.glob("refused*/.rollcall*")) == []


# Longer: whichever process is killed, and nothing lost by it.


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 3])
def test_train_ends_with_75_whichever_of_four_processes_is_killed(processes, victim, capsys):
    run = Ran(processes.folder / f"without_{victim}")
    words = command(processes, workdir=run.path.name, steps=1000)
    four = processes.several([words] * 4)
    wait(lambda: len(run.steps) >= 3, four)
    four[victim].kill(signal.SIGKILL)
    began, codes = time.monotonic(), []
    for process in four:
        codes.append(process.code())
    seconds = time.monotonic() - began
    assert codes == [-signal.SIGKILL if process == victim else 75 for process in range(4)]
    assert seconds < GONE
    with capsys.disabled():
        print(f"\nprocess {victim} of 4 killed: the others ended with code 75 within {seconds:.1f} s")
        for process in four:
            print("  " + process.printed.strip().splitlines()[-1])


@pytest.mark.slow
def test_train_ends_in_all_processes_when_process_0_can_not_write(processes):
    run = Ran(processes.folder / "unwritable")
    pair = processes.several([command(processes, workdir=run.path.name, steps=1000)] * 2, 2)
    wait(lambda: len(run.steps) >= 3, pair)
    (run.path / "metrics.jsonl").rename(run.path / "metrics until then")
    (run.path / "metrics.jsonl").mkdir()
    assert [process.code() for process in pair] == [1, 75]
    assert "metrics.jsonl" in pair[0].printed
    assert "the same command resumes from step" in pair[0].printed
    assert "the same command resumes from step" in pair[1].printed


@pytest.mark.slow
def test_train_resumed_twice_equals_an_uninterrupted_run(processes, run_of_two, killed, finished):
    pair, codes = finished
    assert codes == [0, 0], pair[0].printed + pair[1].printed
    assert f"resumed from step {killed[3][-1]} in" in pair[0].printed
    whole = Ran(processes.folder / "whole")
    pair = processes.several([command(processes, workdir="whole")] * 2, 2)
    assert [process.code() for process in pair] == [0, 0]
    logs = {path.name for path in run_of_two.path.glob("rollouts/step_*")}
    assert logs == {f"step_{step:06d}.jsonl" for step in (1, 2, 4, 6, 8)}
    assert untimed(run_of_two.rows("metrics.jsonl")) == untimed(whole.rows("metrics.jsonl"))
    assert run_of_two.json("result.json") == whole.json("result.json")
