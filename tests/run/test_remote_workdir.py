"""`remote_workdir`: what is copied when, and where checkpoints are. A local folder stands for the bucket."""

import importlib.util
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from helpers.buckets import use_local_buckets, use_machine
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.remote_workdir import STAMP, open_workdir, pull, push, storage_folder, synchronize
from nft_jax.run.weights import has_weights, load_weights, save_weights
from nft_jax.run.workdir import Workdir
from nft_jax.state import State

SMALL = {
    "config.json": "{}",
    "metrics.jsonl": '{"step": 1}\n',
    "rollouts/step_000001.jsonl": "a\n",
    "warm_start/config.json": "{}",
    "model/tokenizer.json": "t",
}
# Large files, and what a killed run leaves of a file that it was writing.
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
    """All files but the stamp."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != STAMP]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The run's folder in the bucket."""
    use_local_buckets(monkeypatch, tmp_path)
    return tmp_path / "buckets" / "name" / "run"


@pytest.fixture
def machine(tmp_path, monkeypatch, bucket):
    """`(name) -> mirror`: goes on as a new process on that machine, which opens the run."""

    def start(name):
        use_machine(monkeypatch, tmp_path / name)
        return open_workdir(str(bucket))

    return start


# What is copied when.


def test_open_workdir_finds_what_push_copied_from_another_machine(bucket, machine):
    mirror = machine("one")
    write(mirror, SMALL | NOT_COPIED)
    push(mirror)
    assert files(bucket) == SMALL
    write(bucket, NOT_COPIED)
    other = machine("other")
    assert other != mirror
    assert files(other) == SMALL


def test_open_workdir_finds_what_was_put_into_the_bucket_by_hand(bucket, machine):
    write(bucket, SMALL)
    assert files(machine("one")) == SMALL


def test_push_copies_only_what_has_changed(bucket, machine):
    mirror = machine("one")
    write(mirror, SMALL)
    push(mirror)
    write(bucket, {"config.json": "as it was"})
    write(mirror, {"metrics.jsonl": '{"step": 1}\n{"step": 2}\n', "best.json": "{}"})
    push(mirror)
    changed = {"config.json": "as it was", "metrics.jsonl": '{"step": 1}\n{"step": 2}\n', "best.json": "{}"}
    assert files(bucket) == SMALL | changed
    # What was pulled is not copied back.
    other = machine("other")
    write(bucket, {"config.json": "changed meanwhile"})
    write(other, {"evaluations/test.json": "{}"})
    push(other)
    assert files(bucket) == SMALL | changed | {"config.json": "changed meanwhile", "evaluations/test.json": "{}"}


def test_pull_takes_the_newer_side(bucket, machine):
    mirror = machine("one")
    write(mirror, {"metrics.jsonl": "1"})
    push(mirror)
    # Lines that no push has copied yet stay.
    write(mirror, {"metrics.jsonl": "12"})
    assert files(machine("one")) == {"metrics.jsonl": "12"}
    # The run goes on elsewhere, and comes back.
    other = machine("other")
    write(other, {"metrics.jsonl": "1345"})
    push(other)
    assert files(machine("one")) == {"metrics.jsonl": "1345"}
    # The mirror is gone.
    shutil.rmtree(mirror)
    assert files(machine("one")) == {"metrics.jsonl": "1345"}


def test_synchronize_gives_every_host_what_process_0_has(machine, monkeypatch, tmp_path):
    other, first = machine("other"), machine("first")
    write(first, SMALL)
    write(other, {"metrics.jsonl": "not process 0's"})
    # One process after the other, so that neither waits at the barrier.
    synchronize(first)
    use_machine(monkeypatch, tmp_path / "other")
    monkeypatch.setattr(remote_workdir.coordination, "process_id", 1)
    synchronize(other)
    assert files(other) == files(first) == SMALL


def test_synchronize_pull_and_push_leave_a_local_folder_alone(bucket, machine, tmp_path):
    machine("one")
    plain = write(tmp_path / "plain", SMALL | NOT_COPIED)
    before = files(tmp_path)
    for act in (synchronize, pull, push):
        act(plain)
    assert files(tmp_path) == before


def test_push_that_was_cut_short_is_made_again(bucket, machine, monkeypatch):
    mirror = machine("one")
    write(mirror, SMALL)
    push(mirror)
    write(mirror, {"metrics.jsonl": "more", "best.json": "{}"})
    proper = Path.read_bytes

    def cut(path):
        if path.name == "best.json":
            raise ConnectionError("no route")
        return proper(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", cut)
        with pytest.raises(OSError, match=r"run can't be copied to .*run: ConnectionError: no route"):
            push(mirror)
    assert "best.json" not in files(bucket)
    assert files(machine("one")) == SMALL | {"metrics.jsonl": "more", "best.json": "{}"}
    push(mirror)
    assert files(bucket) == files(mirror)


def test_workdir_push_prints_that_the_bucket_can_not_be_reached_and_goes_on(bucket, machine, monkeypatch, capsys):
    mirror = machine("one")
    folder = Workdir(mirror)
    folder.append({"step": 1})

    def lost(*_):
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(remote_workdir, "_copy_files", lost)
        folder.push()
        assert "no route; the run goes on, and tries again later" in capsys.readouterr().err
        with pytest.raises(OSError, match="no route"):
            push(mirror)
        patch.setattr(remote_workdir.coordination, "process_id", 1)
        push(mirror)  # process 1 copies nothing
    folder.push()
    assert files(bucket) == {"metrics.jsonl": '{"step": 1}\n'}


def test_workdir_check_room_passes_in_a_bucket(machine, tmp_path):
    Workdir(machine("one")).check_space(2**80)
    with pytest.raises(ValueError, match="are free"):
        Workdir(tmp_path / "plain").check_space(2**80)


# Where checkpoints and weights are.


def test_storage_folder_of_a_mirror_is_in_the_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NFT_JAX_CACHE", "cache")
    for name in ("bucket/run", "bucket/deep/run", "bucket/run/warm_start"):
        mirror = Path("cache/workdirs") / name
        assert str(storage_folder(mirror)) == f"gs://{name}"
        assert remote_workdir.is_remote(mirror)
        assert str(Checkpoints(mirror).folder) == f"gs://{name}/checkpoints"
    assert str(storage_folder(Path("run"))) == str(tmp_path / "run")
    assert not remote_workdir.is_remote(Path("run"))


def test_open_workdir_takes_a_local_folder_or_one_in_a_bucket(monkeypatch):
    assert open_workdir("runs/tiny") == Path("runs/tiny")
    for wrong in ("s3://bucket/run", "gs://", "gs:///", "https://storage.googleapis.com/bucket"):
        with pytest.raises(ValueError, match="give a local folder, or one in a bucket: gs://BUCKET/PATH"):
            open_workdir(wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--workdir=gs://bucket/run needs .* pip install 'nft_jax\[gcs\]'"):
        open_workdir("gs://bucket/run")


def test_open_workdir_pulls_into_the_cache_and_names_the_setting_in_errors(monkeypatch, tmp_path):
    use_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    pulled = []
    monkeypatch.setattr(remote_workdir, "pull", pulled.append)
    mirror = tmp_path / "workdirs" / "bucket" / "run"
    assert open_workdir("gs://bucket/run/") == mirror
    assert pulled == [mirror]

    def refuse(_):
        raise OSError("403")

    monkeypatch.setattr(remote_workdir, "pull", refuse)
    with pytest.raises(ValueError, match=r"config.base=gs://bucket/other: 403\n\(to get access: gcloud auth"):
        open_workdir("gs://bucket/other", "config.base")


def state(value: float) -> State:
    return State({"x": jnp.full(2, value)}, {"y": jnp.full(3, value)}, jnp.int32(value), jnp.int32(0), None, None)


def test_checkpoints_in_a_bucket_are_complete_when_they_are_marked(bucket, machine, caplog):
    mirror = machine("one")
    with Checkpoints(mirror, 2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {"step": step})
        checkpoints.wait()
        assert checkpoints.steps == [2, 3]
        assert f"resumes from step 3 ({bucket}/checkpoints/3)" in checkpoints.describe_resume()
    assert not (mirror / "checkpoints").exists()
    # A bucket can't rename a folder: what is being written has its final name already.
    (bucket / "checkpoints" / "3" / "commit_success.txt").unlink()
    with Checkpoints(mirror) as reader:
        assert reader.steps == [2]
    assert (bucket / "checkpoints" / "3").exists()
    with Checkpoints(mirror, 2) as checkpoints:
        assert not (bucket / "checkpoints" / "3").exists()
        assert f"{bucket}/checkpoints/3 was not finished when its run ended" in caplog.text
        shapes = jax.eval_shape(lambda: state(0))
        assert checkpoints.restore(shapes, lambda run: None)[1].step == 2
        checkpoints.save(3, state(3), {"step": 3})
        checkpoints.wait()
        assert checkpoints.steps == [2, 3]


def test_save_weights_in_a_bucket_marks_them_when_they_are_complete(bucket, machine):
    phase = machine("one") / "warm_start"
    assert not has_weights(phase)
    save_weights(phase, state(5.0).weights)
    assert has_weights(phase)
    assert not (phase / "weights").exists()
    assert load_weights(phase, jax.eval_shape(lambda: state(0.0).weights))["x"].tolist() == [5.0, 5.0]
    (bucket / "warm_start" / "weights" / "commit_success.txt").unlink()
    assert not has_weights(phase)
