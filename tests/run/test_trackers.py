"""wandb and trackio get the numbers that TensorBoard gets; where they fail, the run goes on."""

import importlib.util
import sys
import types

import pytest

from helpers.experiments import small
from nft_jax.run.tensorboard import numbers
from nft_jax.run.trackers import check_installed, open_trackers

STEP = {"step": 3, "reward": 0.5, "kl": None, "late": True, "verdicts": {"error": 2}, "rate_histogram": [1, 4]}
SCORE = {"step": 3, "greedy": 0.25, "pass_at": {2: 0.5}}
NUMBERS = {"reward": 0.5, "verdicts/error": 2.0, "rate_histogram/0": 1.0, "rate_histogram/1": 4.0}
SCORES = {"validation/greedy": 0.25, "validation/pass_at/2": 0.5}


class Package(types.ModuleType):
    """Stands for wandb or trackio: notes what it gets, and fails from the call number `fails_at` on."""

    def __init__(self, name, fails_at=99):
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, None)
        self.calls, self.fails_at = [], fails_at

    def note(self, *call):
        self.calls.append(call)
        if len(self.calls) >= self.fails_at:
            raise ConnectionError("no network")

    def init(self, **options):
        self.note("init", options)
        return self

    def log(self, values, step):
        self.note("log", step, values)

    def finish(self):
        self.note("finish")


@pytest.fixture(params=["wandb", "trackio"])
def package(request, monkeypatch):
    stand_in = Package(request.param)
    monkeypatch.setitem(sys.modules, request.param, stand_in)
    return stand_in


def track(workdir, package, resume_from=0):
    config = small(record__trackers=f"tensorboard, {package.__name__}")
    check_installed(config.record.tracker_names)
    with open_trackers(workdir, config, resume_from, {"": [], "validation": []}) as trackers:
        trackers.add(3, STEP)
        trackers.add(3, SCORE, prefix="validation")
    return config


def test_trackers_give_a_package_the_names_of_the_metrics(tmp_path, package):
    config = track(tmp_path, package)
    (_, options), *logs, end = package.calls
    assert logs == [("log", 3, NUMBERS), ("log", 3, SCORES)] and end == ("finish",)
    assert options["project"] == "nft_jax" and options["name"] == str(tmp_path) and options["resume"] == "never"
    assert options["config"]["seed"] == config.seed
    assert any((tmp_path / "tensorboard").iterdir())


def test_trackers_go_on_in_the_same_run_when_it_resumes(tmp_path, package):
    for resume_from in (0, 3, 0):
        track(tmp_path, package, resume_from)
    first, resumed, anew = (options for call, *rest in package.calls if call == "init" for options in rest)
    assert (first["resume"], resumed["resume"]) == ("never", "allow")
    assert first.get("id") == resumed.get("id")
    assert package.__name__ == "trackio" or anew["id"] != first["id"]


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_trackers_go_on_without_a_package_that_fails(tmp_path, package, fails_at, capsys):
    package.fails_at = fails_at
    track(tmp_path, package)
    assert len(package.calls) == fails_at
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"{package.__name__} failed: ConnectionError('no network'); the run goes on without it" in printed


def test_check_installed_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"names wandb, which is not installed: pip install -e \.\[wandb\]"):
        check_installed(("tensorboard", "wandb"))
    check_installed(("tensorboard",))


def test_unknown_tracker_is_refused():
    with pytest.raises(ValueError, match="unknown tracker 'wandbb': known are .*wandb"):
        small(record__trackers="wandbb")
    assert small(record__trackers="").record.tracker_names == ()
    assert numbers("", {"step": 1}) == {}


@pytest.mark.slow
def test_trackio_keeps_the_numbers_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    trackio = pytest.importorskip("trackio", reason="no trackio: pip install -e .[trackio]")
    track(tmp_path / "run", trackio)
    api = trackio.Api()
    (run,) = api.runs("nft_jax")
    assert run.name == str(tmp_path / "run")
