"""The stages of an experiment: what each opens, and what it leaves behind."""

import dataclasses

import jax
import psutil
import pytest

from helpers.experiments import grader, small, write_graders
from nft_jax.experiment import build_experiment, open_experiment
from nft_jax.verify.pool.pool import Pool


def test_build_experiment_starts_no_process(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an experiment that is only built starts no process")

    monkeypatch.setattr(Pool, "__init__", refuse)
    experiment = build_experiment(small(), tmp_path, jax.devices()[:1])
    assert experiment.verifier is None
    with pytest.raises(ValueError, match="no grading processes: use open_experiment"):
        experiment.step(experiment.make_optimizer())


def test_open_experiment_ends_its_processes_with_the_block(tmp_path):
    write_graders(tmp_path)
    config = small(verify__workers=1, verify__grader=grader("coin"), verify__second_grader=grader("all_correct"))
    with open_experiment(config, tmp_path, jax.devices()[:1]) as experiment:
        pids = [*experiment.verifier.pool.pids, *experiment.verifier.second_pool.pids]
        assert len(pids) == 2
        assert all(map(psutil.pid_exists, pids))
    assert not any(map(psutil.pid_exists, pids))


def test_open_experiment_ends_its_processes_if_the_second_grader_does_not_start(tmp_path):
    children = set(psutil.Process().children())
    config = small(verify__workers=1, verify__second_grader="no_such_module:f")
    opened = open_experiment(config, tmp_path, jax.devices()[:1])
    with pytest.raises(ValueError, match="config.verify.second_grader='no_such_module:f'"):
        opened.__enter__()
    assert set(psutil.Process().children()) == children


def test_experiment_is_frozen(tmp_path):
    experiment = build_experiment(small(), tmp_path, jax.devices()[:1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.config = small()
