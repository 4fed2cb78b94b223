"""Carries out a comparison: bases, runs that choose learning rates, and runs that are reported."""

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nft_jax import own_code
from nft_jax.compare.runs import Runner, check_run, check_score, open_runner
from nft_jax.compare.variants import Plan, Variant
from nft_jax.config import Phase
from nft_jax.data.dataset import name_set
from nft_jax.data.generated import is_generated
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import score
from nft_jax.experiment import Experiment, make_evaluator, open_experiment
from nft_jax.losses import LOSSES
from nft_jax.run.fingerprint import FINGERPRINT_FILE, check_same, make_fingerprint, read_fingerprint_file
from nft_jax.run.json_files import read_json, set_aside
from nft_jax.run.weights import has_weights
from nft_jax.run.workdir import Workdir, as_json
from nft_jax.sft import warm_start

HELD_OUT = ("validation", "test")
# The settings that a comparison varies; all others that decide numbers are the same for all runs of a workdir.
VARIED = (
    *("steps", "strict_on_policy", "old_logp", "loss.name", "loss.normalizer"),
    *(f"loss.{name}" for name in (*LOSSES, "own")),
)


class StudyResult(NamedTuple):
    """What a study found.

    Attributes:
      tuning: by variant and rate, the final validation score of each tuning seed.
      rates: by variant, the chosen rate.
      runs: by variant, the run of each seed.
      bases: for each seed, by split, the scores of the base.
    """

    plan: Plan
    tuning: dict[Variant, dict[float, list[float]]]
    rates: dict[Variant, float]
    runs: dict[Variant, list[dict]]
    bases: list[dict]


class Study:
    """Carries out a plan in one workdir, which keeps finished runs.

    Args:
      base: the experiment with the problems, model, mesh and evaluation of all variants.

    Raises:
      ValueError: if validation or test problems are missing, or the workdir holds a study with other settings.
    """

    def __init__(self, plan: Plan, base: Experiment, workdir: Path):
        self.plan, self.base, self.workdir = plan, base, workdir
        tables = _held_out_tables(base)
        self._check_same(Workdir(workdir))
        self.done, self.began, self.bases = 0, time.perf_counter(), {}
        if base.config.base or not base.config.warm_start.steps:
            self.base_weights(plan.seeds[0])  # weights that can't be used are refused before anything is compiled
        self.evaluator = make_evaluator(base, tables)

    def run(self) -> StudyResult:
        """Carries out the runs that the workdir does not hold, variant after variant."""
        plan, tuning, rates, runs = self.plan, {}, {}, {}
        for variant in plan.variants:
            with contextlib.ExitStack() as stack:
                # Compiles when first called: a study that is complete compiles nothing.
                runner = functools.cache(functools.partial(self._runner, variant, stack))
                tuning[variant] = self._tune(variant, runner)
                rates[variant] = best_rate(tuning[variant]) if tuning[variant] else plan.rates[0]
                runs[variant] = [self._run_once(variant, runner, seed, rates[variant]) for seed in plan.seeds]
        bases = [self._base_score(seed) for seed in plan.seeds]
        return StudyResult(plan, tuning, rates, runs, bases)

    def _runner(self, variant: Variant, stack: contextlib.ExitStack) -> Runner:
        return stack.enter_context(open_runner(variant, self.base, self.evaluator, self.workdir, self.plan.budget))

    def _tune(self, variant: Variant, runner: Callable[[], Runner]) -> dict[float, list[float]]:
        plan = self.plan
        if len(plan.rates) == 1:
            return {}
        return {
            rate: [self._run_once(variant, runner, seed, rate)["curve"][-1]["sampled"] for seed in plan.tuning_seeds]
            for rate in plan.rates
        }

    def _run_once(self, variant: Variant, runner: Callable[[], Runner], seed: int, rate: float) -> dict:
        self.done += 1
        path = self._path(variant, seed, rate)
        if (kept := _read_kept(path, check_run)) is not None:
            return kept
        weights = self.base_weights(seed)
        began = time.perf_counter()
        try:
            run = runner().run(weights, seed, rate)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{variant.loss}, {variant.regime}, rate {rate:g}, seed {seed}: {error}; finished runs are kept: leave "
                f"this rate out of config.compare.learning_rates, and run the same command again"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        Workdir(path.parent).write_json(path.name, run)
        last = run["curve"][-1]
        print(
            f"{self.done:>4}/{self.plan.runs} {variant.loss}, {variant.regime}, rate {rate:g}, seed {seed}: "
            f"greedy {last['greedy']:.3f}, sampled {last['sampled']:.3f}, {last['updates']} updates, "
            f"{time.perf_counter() - began:.0f} s ({(time.perf_counter() - self.began) / 60:.0f} min so far)",
            flush=True,
        )
        return run

    def base_weights(self, seed: int) -> Any:
        """Returns a seed's base on the host: the weights after its warm start, if the config has one."""
        if seed not in self.bases:
            config, folder = self.base.config, self._base_folder(seed)
            # Generated solutions differ by seed. Those of a file are the study's: by another seed, other problems would
            # be cut for validation, and a base would learn the solutions of the study's.
            dataset = None if is_generated(name_set(config, "train")) else self.base.dataset
            if not config.base and config.warm_start.steps and not has_weights(folder):
                seeded = dataclasses.replace(config, seed=seed)
                with open_experiment(seeded, self.workdir, dataset=dataset) as experiment:
                    warm_start(experiment, Workdir(folder))
            if has_weights(folder):
                config = dataclasses.replace(config, base=str(folder))
            self.bases[seed] = jax.device_get(dataclasses.replace(self.base, config=config).starting_weights())
        return self.bases[seed]

    def _base_score(self, seed: int) -> dict:
        folder = Workdir(self._base_folder(seed))
        path = folder.path / "score.json"
        if (kept := _read_kept(path, self._check_base)) is None:
            weights = self.base.place(self.base_weights(seed), self.base.model.weight_specs)
            answers = {name: self.evaluator(weights, name, f"{name}, base {seed}") for name in self.evaluator.tables}
            scores = {name: as_json(score(each)) for name, each in answers.items()}
            folder.write_json(path.name, scores)
            kept = read_json(path)
        return kept

    def _check_base(self, scores: dict) -> None:
        for name in self.evaluator.tables:
            check_score(scores[name])

    def _path(self, variant: Variant, seed: int, rate: float) -> Path:
        budget = self.plan.budget
        ends = f"{budget.amount}_tokens" if budget.of == "tokens" else f"after_{budget.amount}_updates"
        regime = ends, f"{variant.updates}_updates"
        return self.workdir.joinpath("runs", *regime, name_folder(variant.loss), f"rate_{rate:g}_seed_{seed}.json")

    def _base_folder(self, seed: int) -> Path:
        return self.workdir / "bases" / f"seed_{seed}"

    def _check_same(self, folder: Workdir) -> None:
        """Checks that the workdir's runs differ only in what is compared."""
        now, path = make_fingerprint(self.base.config, self.base.dataset, folder.path), folder.path / FINGERPRINT_FILE
        if path.exists():
            check_same(read_fingerprint_file(path), now, self.workdir, Phase.ALL, VARIED)
        folder.write_run(self.base.config, self.base.model.attention.name)
        folder.write_json(path.name, now)


def name_folder(loss: str) -> str:
    """Returns the name of the folder with a loss's runs; a loss of a user's own is another one with other code."""
    code = own_code.digest(loss.split()[0])
    return re.sub(r"[^\w.=+-]+", "_", loss) + (f"_{code}" if code else "")


def _held_out_tables(experiment: Experiment) -> dict[str, PromptTable]:
    """Returns the validation problems, by which rates are chosen, and the test problems, which are reported."""
    tables = experiment.dataset.tables
    if missing := [name for name in HELD_OUT if name not in tables]:
        raise ValueError(
            f"a comparison chooses rates on validation problems and reports on test problems; "
            f"set {' and '.join(f'config.data.{name}' for name in missing)}"
        )
    return {name: tables[name] for name in HELD_OUT}


def _read_kept(path: Path, check: Callable[[dict], Any]) -> dict | None:
    """Returns a result that the workdir keeps; None without one, or where it is damaged and set aside."""
    if not path.exists():
        return None
    try:
        values = read_json(path)
        check(values)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        set_aside(path, f"{path} is damaged: {error!r}")
        return None
    return values


def best_rate(scores: dict[float, list[float]]) -> float:
    """Returns the rate with the best mean score; of equal ones, the smallest."""
    return max(sorted(scores), key=lambda rate: float(np.mean(scores[rate])))
