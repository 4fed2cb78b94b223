"""`python -m nft_jax.evaluate`: its weights, problems, files, output and refusals."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import commands
from helpers.configs import flat
from helpers.experiments import compilations, grader, open_on_mesh, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax import evaluate as program
from nft_jax.config import to_dict
from nft_jax.data.dataset import read_splits
from nft_jax.evaluate import evaluate
from nft_jax.evaluation.answers import extract_vote
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import maj_at_k, score
from nft_jax.experiment import make_evaluator
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.weights import save_weights
from nft_jax.run.workdir import as_json
from nft_jax.update.optimizer import make_optimizer
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.version import version

ANSWERS = 3
SIZES = {"evaluation__max_problems": 6, "evaluation__problems_per_batch": 4, "evaluation__answers_per_problem": ANSWERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def config(folder):
    return small(verify__grader=grader("coin"), **SIZES)


@pytest.fixture(scope="module")
def weights():
    """Weights by the step of a run; 0 is its warm start."""
    return lambda config: {step: lively_weights(config.model, seed=step) for step in (0, 2, 4)}


@pytest.fixture(scope="module")
def run(folder, config, weights):
    """The workdir of a run of four steps, and the scores of its weights on the test split."""
    path = folder / "run"
    experiment = open_on_mesh(config, path)
    (path / "config.json").write_text(json.dumps(to_dict(config)))
    optimizer = make_optimizer(config.optimizer, config.steps, experiment.model.axes)
    placed = {
        step: experiment.place(tree, experiment.model.weight_specs) for step, tree in weights(experiment.config).items()
    }
    evaluator = make_evaluator(experiment, {"test": experiment.dataset.tables["test"]})
    scores = {step: score(evaluator(tree, "test")) for step, tree in placed.items()}
    save_weights(path / "warm_start", placed[0])
    with Checkpoints(path, keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, experiment.initial_state(optimizer, placed[step]), {})
        checkpoints.wait()
        # Compiles what checks weights that are read, whichever test comes first.
        checkpoints.restore_weights(2, experiment.model.abstract_trained())
    experiment.verifier.pool.close()
    return path, scores


def write_problems(path: Path, sums: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"problem": f"{s}=", "answer": str(eval(s)), "id": s}) + "\n" for s in sums))
    return path


@pytest.fixture(scope="module")
def files(folder):
    """Two files: nine problems, one of them too long, and two problems."""
    many = [f"{i}+1" for i in range(1, 9)]
    long = write_problems(folder / "files" / "many.jsonl", [many[0], "+".join("1" * 30), *many[1:]])
    return long, write_problems(folder / "files" / "few.jsonl", ["2-1", "3-1"])


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def score_rows(lines: list[dict]) -> dict:
    """The score of the rows in a file, by other formulas."""
    correct_EK = np.array([[verdict == "correct" for verdict in row["verdicts"]] for row in lines])
    correct_EK &= ~np.array([row["truncated"] for row in lines])
    greedy_E, share_E = correct_EK[:, 0].astype(float), correct_EK[:, 1:].mean(axis=1)
    n = correct_EK.shape[1] - 1
    missed = {k: [math.comb(n - c, k) / math.comb(n, k) for c in correct_EK[:, 1:].sum(axis=1)] for k in (1, 2, n)}
    verdicts = [verdict for row in lines for verdict in row["verdicts"][1:]]
    return {
        "greedy": greedy_E.mean(),
        "greedy_error": np.std(greedy_E, ddof=1) / len(lines) ** 0.5,
        "sampled": share_E.mean(),
        "sampled_error": np.std(share_E, ddof=1) / len(lines) ** 0.5,
        "pass_at": {str(k): 1 - np.mean(each) for k, each in missed.items()},
        "maj_at": {str(k): np.mean([majority(row, k) for row in lines]) for k in (2, n)},
        "verdicts": {status: verdicts.count(status) for status in STATUSES},
        "truncated": np.mean([row["truncated"] for row in lines]),
        "length": np.mean([row["lengths"] for row in lines]),
        "entropy": -sum(sum(row["logps"][1:]) for row in lines) / sum(sum(row["lengths"][1:]) for row in lines),
        "problems": len(lines),
        "answers": n,
        "disagreement": disagreement(lines),
    }


def disagreement(lines: list[dict]) -> float:
    pairs = [pair for row in lines for pair in zip(row["verdicts"], row["second_verdicts"], strict=True)]
    judged = [(one == "correct", other == "correct") for one, other in pairs if other is not None]
    return np.mean([one != other for one, other in judged]) if judged else None


def numbers_of(folder: Path, name: str) -> dict:
    (path,) = folder.glob(f"{name}_*.json")
    return json.loads(path.read_text())["score"]


def majority(row: dict, k: int) -> float:
    correct = [verdict == "correct" and not cut for verdict, cut in zip(row["verdicts"], row["truncated"], strict=True)]
    return maj_at_k([extract_vote(answer) for answer in row["answers"][1:]], correct[1:], k)


def unvoted(found: dict) -> dict:
    """The scores without maj@k, which needs the texts of the answers."""
    assert all(one.maj_at for one in found.values())
    return {name: one._replace(maj_at={}) for name, one in found.items()}


# The command line.


def test_evaluate_command_writes_scores_and_every_answer(folder, run, files):
    path, _ = run
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    settings = {"max_problems": 0, "temperature": 0.6, "top_p": 0.7, "top_k": 12}
    words = [f"--config.evaluation.{name}={value}" for name, value in settings.items()]
    words += [
        f"--workdir={path}",
        "--step=2",
        f"--problems={files[0]},{files[1]}",
        "--config.rollout.max_answer_tokens=9",
    ]
    done = commands.run("nft_jax.evaluate", *words, PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    found = path / "evaluations" / "step_000002"
    assert sorted(file.name for file in found.iterdir()) == [
        f"{name}_n3_t0.6_p0.7_k12.{kind}" for name in ("few", "many") for kind in ("json", "jsonl")
    ]
    # The files of the run are unchanged.
    assert {file: file.read_bytes() for file in before} == before
    printed = done.stdout.splitlines()
    assert f"weights   step 2, from {path}/checkpoints/2" in printed
    assert "problems  many: all 8; 1 more are left out: prompts of over 16 tokens" in printed
    assert "problems  few: all 2" in printed
    bars = [line.split("▕")[0].split() + line.split("▏")[1].split()[:1] for line in printed if "▕" in line]
    assert bars == [["many", "4/8"], ["many", "8/8"], ["few", "2/2"]]
    header, *table, mean = printed[-8:-4]
    names = "file", "problems", "greedy", "avg@3", "pass@2", "pass@3", "maj@3", "truncated", "length"
    assert tuple(re.split("  +", header)) == names
    sums = [f"{i}+1" for i in range(1, 9)], ["2-1", "3-1"]
    for line, name, ids, dropped in zip(table, ("many", "few"), sums, (1, 0), strict=True):
        result = json.loads((found / f"{name}_n3_t0.6_p0.7_k12.json").read_text())
        lines = rows(found / f"{name}_n3_t0.6_p0.7_k12.jsonl")
        assert flat(result["score"]) == pytest.approx(flat(score_rows(lines)), abs=1e-12)
        assert [(row["id"], row["prompt"], row["reference"]) for row in lines] == [
            (s, f"{s}=", str(eval(s))) for s in ids
        ]
        assert len(result["problems"].pop("digest")) == 16
        assert result["problems"] == {"evaluated": len(ids), "fit": len(ids), "dropped": dropped}
        cells = [line[header.index(column) :].split("  ")[0].strip() for column in names]
        numbers = result["score"]
        assert cells == [
            *(name, str(len(ids)), f"{numbers['greedy']:.3f} ± {numbers['greedy_error']:.3f}"),
            f"{numbers['sampled']:.3f} ± {numbers['sampled_error']:.3f}",
            *(f"{numbers['pass_at'][k]:.3f}" for k in ("2", "3")),
            f"{numbers['maj_at']['3']:.3f}",
            *(f"{numbers['truncated']:.3f}", f"{numbers['length']:.1f}"),
        ]
    halves = [numbers_of(found, name)["greedy"] for name in ("many", "few")]
    assert mean.split()[:3] == ["mean", "10", f"{np.mean(halves):.3f}"]
    assert printed[-3].startswith("sampled at temperature 0.6, top_p 0.7, top_k 12, of up to 9 tokens; seed 0")
    grader_version, digest = version(grader("coin")), result["origin"]["weights_digest"][:12]
    assert printed[-2] == f"verifier {grader_version}; weights {digest}; ± one standard error"
    assert result["settings"] == {
        **{
            "answers": 3,
            "temperature": 0.6,
            "top_p": 0.7,
            "top_k": 12,
            "max_answer_tokens": 9,
            "stop": "",
            "end_ids": "",
            "max_prompt_tokens": 16,
        },
        **{"seed": 0, "template": "plain", "dtype": "float32", "precision": "highest"},
        **{"grader": grader_version, "correct_from": 0.0, "second_grader": ""},
    }
    assert len(result["origin"].pop("weights_digest")) == 16
    assert result["origin"] == {"step": 2, "weights": f"{path}/checkpoints/2", "problems": str(files[1])}
    assert result["config"]["evaluation"]["top_k"] == 12
    assert result["run"]["versions"]["jax"]


def test_evaluate_compares_two_graders(config, run, capsys):
    path, _ = run
    both = dataclasses.replace(config, verify=dataclasses.replace(config.verify, second_grader=grader("all_correct")))
    (found,) = evaluate(both, path, 4).values()
    (scores,) = [file for file in (path / "evaluations" / "step_000004").glob("*.json")]
    lines = rows(scores.with_suffix(".jsonl"))
    judged = [status for row in lines for status in row["second_verdicts"] if status is not None]
    assert judged == ["correct"] * sum(not cut for row in lines for cut in row["truncated"])
    assert len(judged) > 2
    # The second grader calls all of them correct.
    correct = sum(status == "correct" for row in lines for status in row["verdicts"])
    assert found.disagreement == disagreement(lines) == pytest.approx(1 - correct / len(judged))
    second = json.loads(scores.read_text())["second_score"]
    assert second["verdicts"]["correct"] == sum(row["second_verdicts"][1:].count("correct") for row in lines)
    printed = capsys.readouterr().out
    assert f"by {grader('all_correct')}: greedy {second['greedy']:.3f}" in printed
    assert "graders differ" in printed
    assert f"{found.disagreement:.3f}" in printed
    assert json.loads(scores.read_text())["settings"]["second_grader"] == version(grader("all_correct"))


def test_evaluate_help_needs_no_device():
    done = commands.run("nft_jax.evaluate", "--help", JAX_PLATFORMS="none")
    assert done.stderr == ""
    for words in ("python -m nft_jax.evaluate --workdir=", "--config:", "--workdir:", "--step:", "--problems:"):
        assert words in done.stdout


# Which weights, and which problems.


def test_evaluate_defaults_to_the_newest_weights_and_test_problems(run, config, capsys):
    path, scores = run
    assert unvoted(evaluate(config, path)) == {"test": scores[4]}
    there = len(read_splits(config, ("test",))["test"])
    printed = capsys.readouterr().out
    assert f"problems  test: the first 6 of {there} (--config.evaluation.max_problems=0 takes all)\n" in printed
    result = json.loads((path / "evaluations" / "step_000004" / "test_n3_t1_p1_k0.json").read_text())
    assert result["score"].pop("maj_at")
    assert result["score"] | {"maj_at": {}} == json.loads(json.dumps(as_json(scores[4])))
    assert len(result["origin"].pop("weights_digest")) == 16
    assert result["origin"] == {
        **{"step": 4, "weights": str(path.resolve() / "checkpoints" / "4"), "problems": "generated arithmetic"},
    }
    # The answers belong to those problems, and the verdicts to those answers.
    import custom_graders

    lines = rows(path / "evaluations" / "step_000004" / "test_n3_t1_p1_k0.jsonl")
    assert len(lines) == 6
    assert len({row["prompt"] for row in lines}) == 6
    for row in lines:
        assert {len(row[name]) for name in ("answers", "verdicts", "truncated", "lengths", "logps")} == {1 + ANSWERS}
        for answer, verdict, truncated in zip(row["answers"], row["verdicts"], row["truncated"], strict=True):
            correct = not truncated and custom_graders.coin(answer, row["reference"])
            assert verdict == ("correct" if correct else "incorrect")


@pytest.mark.parametrize("step", [0, 2])
def test_evaluate_takes_the_weights_of_a_step(run, config, step):
    path, scores = run
    assert len(set(map(str, scores.values()))) == 3
    assert unvoted(evaluate(config, path, step)) == {"test": scores[step]}
    result = json.loads((path / "evaluations" / f"step_00000{step}" / "test_n3_t1_p1_k0.json").read_text())
    assert result["origin"]["step"] == step


def test_evaluate_without_checkpoints_takes_the_base_weights(run, config, tmp_path):
    path, scores = run
    based = dataclasses.replace(config, base=str(path / "warm_start"))
    assert unvoted(evaluate(based, tmp_path / "new")) == {"test": scores[0]}
    # The folder of `sft` is evaluated in the same way.
    assert unvoted(evaluate(config, path / "warm_start")) == {"test": scores[0]}


def test_evaluate_needs_neither_training_problems_nor_warm_start(run, config, files, tmp_path):
    """Also if the evaluated file has the name of a split."""
    path, _ = run
    file = write_problems(tmp_path / "train.jsonl", ["1+1", "1+2"])
    tokenizer = str(path / "tokenizer" / "arithmetic.model")
    data = dataclasses.replace(config.data, train="/nowhere.jsonl", test=str(file), tokenizer=tokenizer)
    warm_start = dataclasses.replace(config.warm_start, steps=3)
    scores = evaluate(dataclasses.replace(config, data=data, warm_start=warm_start), path, 2)
    assert list(scores) == ["train"]
    assert scores["train"].problems == 2


def test_evaluate_resumes_an_interrupted_evaluation(run, config, monkeypatch):
    path, scores = run
    written = path / "evaluations" / "step_000002" / "test_n3_t1_p1_k0.jsonl"
    written.unlink(missing_ok=True)
    evaluate(config, path, 2)
    whole = written.read_text()
    begun = []

    batches = Evaluator.batches

    def failing(self, weights, name, first=0):
        begun.append(first)
        yield next(batches(self, weights, name, first))
        raise RuntimeError("out of memory")

    def watched(self, weights, name, first=0):
        begun.append(first)
        return batches(self, weights, name, first)

    other = dataclasses.replace(config, seed=config.seed + 1)
    monkeypatch.setattr(Evaluator, "batches", failing)
    for _ in range(2):
        # An evaluation with another seed does not resume this one, nor this one that.
        with pytest.raises(RuntimeError, match="out of memory"):
            evaluate(other, path, 2)
        with pytest.raises(RuntimeError, match="out of memory"):
            evaluate(config, path, 2)
    assert begun == [0, 0, 0, 0]
    assert written.read_text().splitlines() == whole.splitlines()[:4]
    assert "score" not in json.loads(written.with_suffix(".json").read_text())
    with open(written, "a") as out:
        out.write(whole.splitlines()[4][:30])  # a line that was half written
    monkeypatch.setattr(Evaluator, "batches", watched)
    assert unvoted(evaluate(config, path, 2)) == {"test": scores[2]}
    assert written.read_text() == whole
    assert unvoted(evaluate(config, path, 2)) == {"test": scores[2]}
    assert begun[4:] == [4, 6]
    assert json.loads(written.with_suffix(".json").read_text())["score"]


def test_compare_pairs_two_steps_by_problem(run, config, tmp_path):
    path, scores = run
    for step in (0, 4):
        evaluate(config, path, step)
    shutil.copytree(path / "evaluations" / "step_000000", tmp_path / "other" / "evaluations" / "step_000000")
    with compilations() as seen:
        printed = program.compare(path, tmp_path / "other", 4)
    assert seen == []
    assert f"this   {path}/evaluations/step_000004\nother  {tmp_path}/other/evaluations/step_000000\n\n" in printed
    (greedy,) = [line.split() for line in printed.splitlines() if line.split()[1:2] == ["greedy"]]
    assert greedy[2:5] == ["6", f"{scores[4].greedy:.3f}", f"{scores[0].greedy:.3f}"]
    with pytest.raises(FileNotFoundError, match="no evaluations there; run python -m nft_jax.evaluate --workdir="):
        program.compare(path, tmp_path)


# Bad input is refused before anything is compiled.


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("no such step", FileNotFoundError, r"--step=3: no such checkpoint in .*run/checkpoints; there are: 2, 4"),
        ("no such file", FileNotFoundError, "nowhere.jsonl does not exist"),
        ("one name", ValueError, "few.jsonl .*would both be called 'few'; rename one"),
        ("no weights", ValueError, "holds no weights.*--config.model.path=FOLDER.*--config.base=WORKDIR"),
        ("no checkpoint", FileNotFoundError, r"--step=3: no such checkpoint.*there are: none"),
        ("no test problems", ValueError, "config.data.test names no problems; name some by --problems=FILE.jsonl"),
        ("unwritable", ValueError, "evaluations/step_000002 can't be written"),
    ],
)
def test_evaluate_refuses_bad_input_before_compiling(run, config, files, tmp_path, what, kind, words):
    path, _ = run
    other = str(write_problems(tmp_path / "other" / "few.jsonl", ["1+1"]))
    untested = dataclasses.replace(config, data=dataclasses.replace(config.data, train=str(files[0])))
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "checkpoints").symlink_to(path / "checkpoints")
    (blocked / "evaluations").write_text("")
    arguments = {
        "no such step": (config, path, 3),
        "no such file": (config, path, 2, ["/nowhere.jsonl"]),
        "one name": (config, path, 2, [str(files[1]), other]),
        "no weights": (config, tmp_path / "empty"),
        "no checkpoint": (config, tmp_path / "empty", 3),
        "no test problems": (untested, path, 2),
        "unwritable": (config, blocked, 2),
    }[what]
    with compilations() as seen, pytest.raises(kind, match=words):
        evaluate(*arguments)
    assert seen == []
