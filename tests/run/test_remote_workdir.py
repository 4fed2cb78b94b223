"""A run in a bucket, for which a folder stands here: what is copied when, and where the heavy parts lie."""

import importlib.util
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import Checkpoints, has_weights, load_weights, save_weights
from nft_jax.run.remote_workdir import RemoteWorkdir
from nft_jax.run.workdir import Workdir
from nft_jax.state import State

LIGHT = {
    "config.json": "{}",
    "metrics.jsonl": '{"step": 1}\n',
    "rollouts/step_000001.jsonl": "a\n",
    "warm_start/config.json": "{}",
    "model/tokenizer.json": "t",
}
# What is heavy, and what a killed run leaves in the midst of writing.
NOT_COPIED = {
    "checkpoints/1/weights/data": "w",
    "warm_start/weights/data": "w",
    "partial.01234567.result.json": "p",
    "partial.01234567.model/config.json": "p",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files(folder: Path) -> dict[str, str]:
    """All files but the link."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != remote_workdir.LINK]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.fixture
def remote(tmp_path):
    """Stands for a folder in a bucket."""
    return epath.Path(tmp_path / "remote")


def machine(remote: epath.Path, local: Path) -> RemoteWorkdir:
    """A process on a machine whose local folder is this one."""
    remote_workdir = RemoteWorkdir(remote, local)
    remote_workdir.fetch()
    return remote_workdir


# What is copied when.


def test_what_one_machine_leaves_another_finds(remote, tmp_path):
    one = machine(remote, tmp_path / "one")
    write(one.local, LIGHT | NOT_COPIED)
    one.push()
    assert files(Path(remote)) == LIGHT
    write(Path(remote), NOT_COPIED)
    other = machine(remote, tmp_path / "other")
    assert files(other.local) == LIGHT
    assert json.loads((other.local / remote_workdir.LINK).read_text())["bucket"] == str(remote)


def test_only_what_has_changed_is_copied(remote, tmp_path):
    one = machine(remote, tmp_path / "one")
    write(one.local, LIGHT)
    one.push()
    (Path(remote) / "config.json").write_text("as it was")
    write(one.local, {"metrics.jsonl": '{"step": 1}\n{"step": 2}\n', "best.json": "{}"})
    one.push()
    assert files(Path(remote)) == LIGHT | {
        "config.json": "as it was",
        "metrics.jsonl": '{"step": 1}\n{"step": 2}\n',
        "best.json": "{}",
    }
    before = (one.local / remote_workdir.LINK).read_text()
    one.push()
    assert (one.local / remote_workdir.LINK).read_text() == before
    # What was fetched is there, and is not copied back.
    other = machine(remote, tmp_path / "other")
    other.push()
    assert (other.local / remote_workdir.LINK).read_text() == before


def test_the_newer_side_wins(remote, tmp_path):
    one = machine(remote, tmp_path / "one")
    write(one.local, {"metrics.jsonl": "1"})
    one.push()
    # Lines that no copy has reached yet stay.
    write(one.local, {"metrics.jsonl": "12"})
    assert files(machine(remote, one.local).local) == {"metrics.jsonl": "12"}
    # The run goes on elsewhere, and comes back.
    other = machine(remote, tmp_path / "other")
    write(other.local, {"metrics.jsonl": "1345"})
    other.push()
    assert files(machine(remote, one.local).local) == {"metrics.jsonl": "1345"}
    # The local folder is gone.
    shutil.rmtree(one.local)
    assert files(machine(remote, one.local).local) == {"metrics.jsonl": "1345"}


def test_all_hosts_begin_with_what_process_0_has(remote, tmp_path, monkeypatch):
    first, other = tmp_path / "first", tmp_path / "other"
    for local in (first, other):
        remote_workdir.attach(remote, local).fetch()
        remote_workdir.attached(local)._write_link(0)
    monkeypatch.setattr(remote_workdir.distributed, "is_multiprocess", lambda: True)
    # One after the other, as processes 0 and 1.
    acting = {"now": True}
    monkeypatch.setattr(remote_workdir.distributed, "on_process_0", lambda act, name: act() if acting["now"] else None)
    write(first, LIGHT)
    remote_workdir.level(first)
    acting["now"] = False
    assert files(other) == {}
    remote_workdir.level(other)
    assert files(other) == files(first) == LIGHT
    # A folder that stands for itself has nobody to be level with.
    remote_workdir.level(write(tmp_path / "plain", LIGHT))


def test_a_copy_that_was_cut_short_is_said_and_made_again(remote, tmp_path, monkeypatch):
    one = machine(remote, tmp_path / "one")
    write(one.local, LIGHT)
    one.push()
    write(one.local, {"metrics.jsonl": "more", "best.json": "{}"})
    proper = RemoteWorkdir._push

    def cut(self, path):
        if path.name == "best.json":
            raise ConnectionError("no route")
        proper(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteWorkdir, "_push", cut)
        with pytest.raises(OSError, match=r"one can't be copied to .*remote: ConnectionError: no route"):
            one.push()
    again = machine(remote, one.local)
    assert files(again.local) == LIGHT | {"metrics.jsonl": "more", "best.json": "{}"}
    again.push()
    assert files(Path(remote)) == files(again.local)


def test_a_bucket_that_can_not_be_reached_is_said_by_a_run_that_goes_on(remote, tmp_path, monkeypatch, capsys):
    remote_workdir.attach(remote, tmp_path / "one").fetch()
    folder = Workdir(tmp_path / "one")
    folder.metrics({"step": 1})

    def lost(*_):
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteWorkdir, "_push", lost)
        folder.share()
        assert "no route; the run goes on, and tries again later" in capsys.readouterr().err
        with pytest.raises(OSError, match="no route"):
            remote_workdir.share(tmp_path / "one")
        patch.setattr(jax.distributed, "is_initialized", lambda: True)
        patch.setattr(jax, "process_index", lambda: 1)
        remote_workdir.share(tmp_path / "one")  # is not process 1's business
    folder.share()
    assert files(Path(remote)) == {"metrics.jsonl": '{"step": 1}\n'}


def test_a_bucket_has_room_and_a_folder_of_its_own_has_no_bucket(remote, tmp_path):
    remote_workdir.attach(remote, tmp_path / "one").fetch()
    Workdir(tmp_path / "one").check_room(2**80)
    with pytest.raises(ValueError, match="are free"):
        Workdir(tmp_path / "own").check_room(2**80)
    before = files(tmp_path)
    Workdir(tmp_path / "own").share()
    assert files(tmp_path) == before


# Where what is heavy lies.


def test_the_name_of_a_bucket_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gs://bucket/run", "gs://bucket/deep/run"):
        path = epath.Path(name)
        assert str(remote_workdir.home(path)) == name
        assert remote_workdir.is_remote(path)
        assert str(Checkpoints(path).folder) == f"{name}/checkpoints"
    assert remote_workdir.home(Path("run")) == epath.Path(tmp_path / "run")
    assert not remote_workdir.is_remote(Path("run"))
    remote_workdir.attach(epath.Path("gs://bucket/run"), tmp_path / "local")._write_link(0)
    assert str(remote_workdir.home(Path("local/warm_start"))) == "gs://bucket/run/warm_start"
    assert str(Checkpoints(Path("local")).folder) == "gs://bucket/run/checkpoints"


def test_only_a_folder_in_a_bucket_is_opened_there(monkeypatch):
    assert remote_workdir.opened("runs/tiny") == Path("runs/tiny")
    for wrong in ("s3://bucket/run", "gs://", "gs:///", "https://storage.googleapis.com/bucket"):
        with pytest.raises(ValueError, match="give a folder, or one in a bucket: gs://BUCKET/PATH"):
            remote_workdir.opened(wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--workdir=gs://bucket/run: .* pip install 'nft_jax\[gcs\]'"):
        remote_workdir.opened("gs://bucket/run")


def test_a_bucket_is_opened_in_the_cache_and_its_errors_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    asked = []
    monkeypatch.setattr(RemoteWorkdir, "fetch", lambda self: asked.append((str(self.remote), self.local)))
    local = tmp_path / "workdirs" / "bucket" / "run"
    assert remote_workdir.opened("gs://bucket/run/") == local
    assert asked == [("gs://bucket/run", local)]
    # Once a process: what it does there afterwards is newer.
    assert remote_workdir.opened("gs://bucket/run") == local
    assert len(asked) == 1

    def refused(self):
        raise OSError("403")

    monkeypatch.setattr(RemoteWorkdir, "fetch", refused)
    with pytest.raises(ValueError, match=r"config.base=gs://bucket/other: 403\n\(access: gcloud auth"):
        remote_workdir.opened("gs://bucket/other", "config.base")


def state(value: float) -> State:
    return State({"x": jnp.full(2, value)}, {"y": jnp.full(3, value)}, jnp.int32(value), jnp.int32(0), None, None)


def test_checkpoints_are_in_the_bucket_and_complete_when_they_are_marked(remote, tmp_path, caplog):
    local = remote_workdir.attach(remote, tmp_path / "one").local
    remote_workdir.attached(local)
    remote_workdir.attach(remote, local).fetch()
    with Checkpoints(local, 2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {"step": step})
        checkpoints.wait()
        assert checkpoints.steps == [2, 3]
        assert f"resumes from step 3 ({remote}/checkpoints/3)" in checkpoints.resumes()
    assert not (local / "checkpoints").exists()
    # A bucket can't rename: what is being written has its name already.
    (remote / "checkpoints" / "3" / "commit_success.txt").unlink()
    with Checkpoints(local) as reader:
        assert reader.steps == [2]
    assert (remote / "checkpoints" / "3").exists()
    with Checkpoints(local, 2) as checkpoints:
        assert not (remote / "checkpoints" / "3").exists()
        assert f"{remote}/checkpoints/3 was not finished when its run ended" in caplog.text
        shapes = jax.eval_shape(lambda: state(0))
        assert checkpoints.restore(shapes, lambda run: None)[1].step == 2
        checkpoints.save(3, state(3), {"step": 3})
        checkpoints.wait()
        assert checkpoints.steps == [2, 3]


def test_weights_are_in_the_bucket_and_whole_when_they_are_marked(remote, tmp_path):
    local = tmp_path / "one"
    remote_workdir.attach(remote, local).fetch()
    phase = local / "warm_start"
    assert not has_weights(phase)
    save_weights(phase, state(5).weights)
    assert has_weights(phase)
    assert not (phase / "weights").exists()
    assert load_weights(phase, jax.eval_shape(lambda: state(0).weights))["x"].tolist() == [5.0, 5.0]
    (remote / "warm_start" / "weights" / "commit_success.txt").unlink()
    assert not has_weights(phase)
