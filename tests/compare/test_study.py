"""A comparison of small runs: equal tokens, one compilation a variant, and no run done twice."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from helpers.experiments import assert_same, compilations, grader, settings, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax.compare import study
from nft_jax.compare.runs import is_nearest, open_runner, with_rate
from nft_jax.compare.study import Study, name_folder
from nft_jax.compare.variants import PROMPTS_PER_SEED, Budget, Variant, read_plan
from nft_jax.config import load
from nft_jax.data.sentencepiece_training import train_sentencepiece
from nft_jax.experiment import open_experiment
from nft_jax.update.optimizer import make_optimizer

TOKENS = 3000
STUDY = {
    "compare__losses": "nft; grpo",
    "compare__updates_per_rollout": "2",
    "compare__sampled_tokens": TOKENS,
    "compare__seeds": "0, 3",
    "compare__learning_rates": "1e-3, 2e-3",
    "compare__tuning_seeds": "5",
    "evaluation__max_problems": 6,
    "evaluation__problems_per_batch": 6,
    "evaluation__answers_per_problem": 2,
    "warm_start__steps": 1,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 16,
    "packing__rows_per_micro_batch": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def config():
    return small(verify__grader=grader("coin"), **STUDY)


def run_study(config, workdir):
    plan = read_plan(config)
    with open_experiment(config, workdir) as base:
        return Study(plan, base, workdir).run()


@pytest.fixture(scope="module")
def done(folder, config):
    """A whole study, and how often each variant's step was compiled in it."""
    made = []

    def count(variant, *rest):
        made.append(variant)
        return open_runner(variant, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "open_runner", count)
        return run_study(config, folder / "run"), made


def test_study_compiles_every_variant_once_and_does_all_its_runs(done, folder):
    found, made = done
    assert made == found.plan.variants == [Variant("nft", 2), Variant("grpo", 2)]
    for variant in made:
        assert len(found.runs[variant]) == 2
        assert {rate: len(scores) for rate, scores in found.tuning[variant].items()} == {1e-3: 1, 2e-3: 1}
    assert len(list((folder / "run" / "runs").rglob("*.json"))) == 2 * (2 + 2) == found.plan.runs


@pytest.mark.parametrize(
    ("step", "budget"), [(100, 1000), (100, 1049), (100, 1051), (300, 1000), (999, 1000), (70, 100)]
)
def test_is_nearest_stops_at_the_step_that_ends_nearest_to_the_budget(step, budget):
    tokens = step
    while not is_nearest(tokens, step, budget):
        tokens += step
    assert abs(tokens - budget) <= step / 2


def test_study_ends_runs_near_their_tokens(done):
    found, _ = done
    for runs in found.runs.values():
        for run in runs:
            last = run["curve"][-1]
            step = last["tokens"] / last["steps"]
            assert abs(last["tokens"] - TOKENS) < step
            assert [row["tokens"] for row in run["curve"]] == sorted(row["tokens"] for row in run["curve"])
            assert last["flops"] > 0


def test_study_gives_each_seed_another_base_and_other_prompts(done):
    found, _ = done
    for runs in found.runs.values():
        assert runs[0]["curve"][0]["reward"] != runs[1]["curve"][0]["reward"]
    assert found.bases[0]["test"] != found.bases[1]["test"]


def test_study_that_is_complete_compiles_nothing_and_finds_the_same(done, folder, config, monkeypatch):
    found, _ = done

    def refuse(*_):
        raise AssertionError("no run is to be repeated")

    monkeypatch.setattr(study, "open_runner", refuse)
    monkeypatch.setattr(study, "warm_start", refuse)
    again = run_study(config, folder / "run")
    assert again.rates == found.rates
    assert json.loads(json.dumps(again.runs[Variant("nft", 2)])) == json.loads(
        json.dumps(found.runs[Variant("nft", 2)])
    )


def test_study_repeats_a_missing_run_with_the_same_result(done, folder, config):
    found, _ = done
    path = next((folder / "run" / "runs").rglob(f"2_updates/nft/rate_{found.rates[Variant('nft', 2)]:g}_seed_3.json"))
    before = json.loads(path.read_text())
    path.unlink()
    run_study(config, folder / "run")
    after = json.loads(path.read_text())
    assert after["test"] == before["test"]
    for row, other in zip(after["curve"], before["curve"], strict=True):
        assert row | {"seconds": 0} == other | {"seconds": 0}


def test_study_refuses_a_workdir_with_other_settings(done, folder, config):
    other = dataclasses.replace(config, answers_per_prompt=2)
    with compilations() as seen, pytest.raises(ValueError, match="config.answers_per_prompt: the run has 4, given 2"):
        run_study(other, folder / "run")
    assert seen == []


def test_study_needs_validation_and_test_problems(folder, config, tmp_path):
    problems = tmp_path / "train.jsonl"
    problems.write_text("\n".join(json.dumps({"problem": f"{i}+1=", "answer": str(i + 1)}) for i in range(20)))
    tokenizer = folder / "run" / "tokenizer" / "arithmetic.model"
    data = {"data__train": str(problems), "data__tokenizer": str(tokenizer), "data__validation_size": 0}
    values = settings(verify__grader=grader("coin"), **data)
    with pytest.raises(ValueError, match="set config.data.validation and config.data.test"):
        run_study(load(values), tmp_path / "run")


def test_no_base_learns_the_solution_of_a_validation_problem(folder, tmp_path, monkeypatch):
    """The seed of a run decides which problems of a file are kept for validation; a study has those of one seed."""
    lines = [{"problem": f"{i}+1=", "answer": str(i + 1), "solution": f"\\boxed{{{i + 1}}}"} for i in range(60)]
    for name, part in (("train", lines[:50]), ("test", lines[50:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {f"data__{name}": str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    data["data__tokenizer"] = str(train_sentencepiece(["0123456789+= "], tmp_path / "t.model", symbols=()))
    config, learned = small(verify__grader=grader("coin"), **STUDY, **data), []
    monkeypatch.setattr(study, "make_evaluator", lambda *_: None)
    monkeypatch.setattr(study, "warm_start", lambda experiment, _: learned.append(experiment))
    with open_experiment(config, tmp_path / "run") as base:
        held_out = {problem.problem for problem in base.dataset.tables["validation"].problems}
        one = Study(read_plan(config), base, tmp_path / "run")
        for seed in (0, 3, 5):
            one.base_weights(seed)
    assert held_out
    for experiment, seed in zip(learned, (0, 3, 5), strict=True):
        assert experiment.config.seed == seed
        assert not held_out & {problem.problem for problem in experiment.dataset.tables["train"].problems}
        assert experiment.dataset.examples is not None


def test_with_rate_gives_the_updates_of_the_configs_rate(config):
    """Five updates with the program's rate in its state, and with the rate built in."""
    weights = lively_weights(config.model)
    axes = jax.tree.map(lambda _: jax.sharding.PartitionSpec(), weights)
    options = {"warmup_updates": 3, "weight_decay": 0.1}
    built_in = make_optimizer(dataclasses.replace(config.optimizer, learning_rate=3e-3, **options), 1, axes)
    unit = dataclasses.replace(config.optimizer, learning_rate=1.0, **options)
    given = with_rate(make_optimizer(unit, 1, axes))
    state, (_, inner) = built_in.init(weights), given.init(weights)
    rated = np.float32(3e-3), inner
    for number in range(5):
        gradient = jax.tree.map(lambda x, n=number: np.cos(x + n).astype(np.float32), weights)
        expected, state = built_in.update(gradient, state, weights)
        found, rated = given.update(gradient, rated, weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), found, expected)
    assert_same(rated[0], np.float32(3e-3))


def test_runner_starts_each_seed_at_its_own_prompts_and_ends_after_its_updates(folder, config):
    with open_experiment(config, folder / "run") as base:
        one = Study(read_plan(config), base, folder / "run")
        with open_runner(Variant("nft", 1), base, one.evaluator, folder, Budget("updates", 3)) as runner:
            for seed in (0, 3):
                state = runner.start(one.base_weights(seed), seed, 1e-3)
                assert int(state.cursor) == int(state.step) == seed * PROMPTS_PER_SEED
                assert float(state.optimizer_state[0]) == pytest.approx(1e-3)
            assert runner.run(one.base_weights(0), 0, 1e-3)["curve"][-1]["updates"] == 3


def test_runs_of_a_loss_whose_code_changed_are_not_those_of_the_loss(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for value in (1, 2):
        (tmp_path / "loss_of_study.py").write_text(f"x = {value}\n")
        names.append(name_folder("loss_of_study:mine floor=-3.0"))
    assert names[0] != names[1]
    assert all(name.startswith("loss_of_study_mine_floor=-3.0_") for name in names)
    assert name_folder("nft omega=one") == "nft_omega=one"
