"""`Checkpoints`: what is saved comes back, and nothing that happens to the files of one step costs another."""

import errno
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from helpers.experiments import assert_same, build_on_mesh, on_host, small
from nft_jax.run.checkpoint import UNFINISHED, Checkpoints, load_weights, save_weights
from nft_jax.state import State
from nft_jax.update.optimizer import make_optimizer

RUN = {"config": {"seed": 0, "loss": {"options": {"omega": 1.0}}}, "problems": {"train": "0123"}}


def any_run(_):
    """What a run says that goes on with whatever it finds."""


@pytest.fixture(scope="module")
def abstract(tmp_path_factory):
    """`(data, tensor, **changes)`: shapes and layouts of the state of an experiment, on a mesh of that size."""

    def get(data=1, tensor=1, **changes):
        config = small(mesh__data=data, mesh__tensor=tensor, **changes)
        experiment = build_on_mesh(config, tmp_path_factory.getbasetemp() / "tokenizer")
        return experiment.abstract_state(make_optimizer(config.optimizer, 4, experiment.model.axes))

    return get


@pytest.fixture(scope="module")
def simple():
    """Shapes and layouts of a state of a few arrays."""
    whole = NamedSharding(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), PartitionSpec())

    def init():
        weights = {"inner": {"kernel": jnp.zeros((40, 30))}, "scale": jnp.zeros(30)}
        return State(weights, optax.adamw(0.1).init(weights), jnp.int32(0), jnp.int32(0), None, None)

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(init))


def filled(abstract: State, seed: int) -> State:
    """A state whose every array is of its own random numbers, in its place."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        values = random.normal(size=leaf.shape) * 100
        return jax.device_put((values > 0 if leaf.dtype == bool else values).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(draw, abstract)


def save(folder: Path, abstract: State, *steps: int, keep: int = 9) -> None:
    """A run that saves these steps, the state of step n filled with seed n."""
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, filled(abstract, step), RUN | {"step": step})


def assert_restored(restored: tuple[int, State] | None, step: int, abstract: State) -> None:
    """It is what `save` saved of that step, bit for bit, and lies where it should."""
    assert restored is not None
    assert restored[0] == step
    assert_same(restored[1], filled(abstract, step))
    in_place = jax.tree.map(
        lambda x, wanted: x.sharding.is_equivalent_to(wanted.sharding, x.ndim), restored[1], abstract
    )
    assert all(jax.tree.leaves(in_place))


def warned(caplog) -> list[str]:
    """What the package said; Orbax and JAX say more."""
    return [record.getMessage() for record in caplog.records if record.name == "nft_jax.run.checkpoint"]


def listing(folder: Path) -> dict[str, Any]:
    """Every file with what is in it."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What is saved comes back.


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("more", [False, True])
def test_all_parts_come_back_bit_for_bit(abstract, tmp_path, optimizer, more):
    parts = {"selection__carry": True, "loss__kl_weight": 0.1} if more else {}
    wanted = abstract(optimizer__name=optimizer, **parts)
    assert (wanted.carried is not None) == (wanted.reference is not None) == more
    save(tmp_path, wanted, 3)
    seen = []
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_restored(checkpoints.restore(wanted, seen.append), 3, wanted)
    assert seen == [RUN | {"step": 3}]


@pytest.mark.parametrize("meshes", [((1, 1), (4, 2)), ((4, 2), (1, 1)), ((4, 2), (2, 4)), ((8, 1), (1, 4))])
def test_a_checkpoint_is_read_onto_another_mesh(abstract, tmp_path, meshes):
    parts = {"selection__carry": True, "loss__kl_weight": 0.1, "model__kv_heads": 4}
    before, after = (abstract(*mesh, **parts) for mesh in meshes)
    save(tmp_path, before, 1)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_restored(checkpoints.restore(after, any_run), 1, after)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_weights(1, after.weights), filled(after, 1).weights)


def test_where_nothing_is_saved_there_is_nothing(simple, tmp_path):
    for keep in (None, 2):
        with Checkpoints(tmp_path, keep) as checkpoints:
            assert (checkpoints.steps, checkpoints.latest) == ([], None)
            assert checkpoints.restore(simple, any_run) is None
            assert "begins anew" in checkpoints.resumes()
        assert not (tmp_path / "checkpoints").exists()


def test_a_reader_sees_what_is_saved_later(simple, tmp_path):
    with Checkpoints(tmp_path) as reader:
        save(tmp_path, simple, 3)
        assert reader.latest == 3
        assert_same(reader.restore_weights(3, simple.weights), filled(simple, 3).weights)


def test_the_last_few_are_kept(simple, tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        for step in (1, 2, 5, 7):
            checkpoints.save(step, filled(simple, step), RUN)
            checkpoints.wait()
            assert checkpoints.latest == step
        assert checkpoints.steps == [5, 7]
        assert f"resumes from step 7 ({tmp_path}/checkpoints/7)" in checkpoints.resumes()
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)
        # A step that is there is not saved again.
        checkpoints.save(7, filled(simple, 1), RUN)
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)


def test_the_best_is_kept_beside_the_last_few(simple, tmp_path):
    there = []
    with Checkpoints(tmp_path, 2) as checkpoints:
        for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 2), (6, 6), (7, 6), (8, 6)):
            checkpoints.save(step, filled(simple, step), RUN)
            checkpoints.save(step, filled(simple, 0), RUN)  # it is under way, or there
            checkpoints.best = best
            checkpoints.wait()
            there.append(checkpoints.steps)
        assert_same(checkpoints.restore_weights(6, simple.weights), filled(simple, 6).weights)
    assert there == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [2, 5, 6], [6, 7], [6, 7, 8]]


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """The next steps may write into the very memory of the state that is still being written to disk."""
    weights = {str(i): jnp.full((512, 512), float(i)) for i in range(8)}
    state = State(weights, (), jnp.int32(0), jnp.int32(0), None, None)
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    expected, overtaken = {}, False
    with Checkpoints(tmp_path, 9) as checkpoints:
        for number in range(1, 5):
            expected[number] = on_host(state)
            checkpoints.save(number, state, RUN)
            state = jax.block_until_ready(step(step(state)))
            overtaken |= number not in checkpoints.steps
        checkpoints.wait()
        assert overtaken
        for number, wanted in expected.items():
            assert_same(on_host(checkpoints.restore_weights(number, state.weights)), wanted.weights)


def test_what_is_named_while_a_save_is_under_way_is_whole(simple, tmp_path):
    """A reader beside the run sees each checkpoint from the moment on at which all of it is there."""
    under_way = 0
    with Checkpoints(tmp_path, 2) as writer:
        for step in range(1, 5):
            writer.save(step, filled(simple, step), RUN)
            while step not in writer.steps:
                under_way += 1
            with Checkpoints(tmp_path) as reader:
                assert_restored(reader.restore(simple, any_run), step, simple)
    assert under_way > 0


# Half written.


@pytest.mark.parametrize("kind", ["a few files", "all but its name"])
def test_a_half_written_one_is_skipped_and_removed_by_the_run_alone(simple, tmp_path, caplog, kind):
    save(tmp_path, simple, 5)
    partial = tmp_path / "checkpoints" / f"7{UNFINISHED}"
    if kind == "a few files":
        (partial / "weights").mkdir(parents=True)
        (partial / "weights" / "manifest.ocdbt").write_text("half")
    else:
        shutil.copytree(tmp_path / "checkpoints" / "5", partial)
    before = listing(tmp_path)
    with Checkpoints(tmp_path) as reader:
        assert reader.steps == [5]
        assert_restored(reader.restore(simple, any_run), 5, simple)
    assert listing(tmp_path) == before
    assert warned(caplog) == []
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert not partial.exists()
        (said,) = warned(caplog)
        assert str(partial) in said
        assert "not finished" in said
        assert_restored(checkpoints.restore(simple, any_run), 5, simple)
        checkpoints.save(7, filled(simple, 7), RUN)
        checkpoints.wait()
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)


# Damaged.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """What a file system leaves of a file whose length it knew and whose contents it had not written."""
    path.write_bytes(bytes(path.stat().st_size))


def all_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


DAMAGES = {
    "data cut": lambda step: [cut(path) for path in step.glob("*/**/d/*")],
    "data emptied": lambda step: [emptied(path) for path in step.glob("*/**/d/*")],
    "weights cut": lambda step: [cut(path) for path in step.glob("weights/**/d/*")],
    "optimizer gone": lambda step: shutil.rmtree(step / "rest"),
    "run gone": lambda step: shutil.rmtree(step / "run"),
    "run cut": lambda step: cut(step / "run" / "metadata"),
    "all emptied": lambda step: [emptied(path) for path in all_files(step)],
    "an empty folder": lambda step: [shutil.rmtree(step), step.mkdir()],
    "an empty file": lambda step: [shutil.rmtree(step), step.write_bytes(b"")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_and_set_aside(simple, tmp_path, caplog, damage):
    save(tmp_path, simple, 1, 2, 3)
    folder = tmp_path / "checkpoints"
    DAMAGES[damage](folder / "3")
    with Checkpoints(tmp_path, 3) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 2, simple)
        (said,) = warned(caplog)
        assert said.startswith("checkpoint 3 can't be read and is skipped")
        assert f"{folder}/3.damaged" in said
        assert (folder / "3.damaged").exists()
        assert checkpoints.steps == [1, 2]
        # The run takes that step again, and saves it.
        checkpoints.save(3, filled(simple, 3), RUN)
        checkpoints.wait()
    with Checkpoints(tmp_path, 3) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 3, simple)
    assert len(warned(caplog)) == 1


def test_the_same_step_may_be_damaged_twice(simple, tmp_path):
    for _ in range(2):
        save(tmp_path, simple, 1, 2)
        DAMAGES["data cut"](tmp_path / "checkpoints" / "2")
        with Checkpoints(tmp_path, 2) as checkpoints:
            assert checkpoints.restore(simple, any_run)[0] == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2.damaged"]


@pytest.mark.parametrize("damage", [zeroed, Path.unlink])
def test_no_file_can_be_damaged_unnoticed(simple, tmp_path, damage):
    """Whichever file of the newest checkpoint it is: the state is that of this step or of the one before."""
    save(tmp_path, simple, 1, 2)
    whole = shutil.copytree(tmp_path, tmp_path / "whole")
    noticed = 0
    for path in all_files(whole / "checkpoints" / "2"):
        folder = shutil.copytree(whole, tmp_path / "one")
        damage(folder / path.relative_to(whole))
        with Checkpoints(folder, 2) as checkpoints:
            restored = checkpoints.restore(simple, any_run)
        assert_restored(restored, restored[0], simple)
        assert (folder / "checkpoints" / "2.damaged").exists() == (restored[0] == 1), path
        noticed += restored[0] == 1
        shutil.rmtree(folder)
    assert noticed > 3


def test_where_all_are_damaged_it_is_said_and_nothing_is_touched(simple, tmp_path):
    save(tmp_path, simple, 1, 2)
    for step in ("1", "2"):
        DAMAGES["data cut"](tmp_path / "checkpoints" / step)
    before = listing(tmp_path)
    with Checkpoints(tmp_path, 2) as checkpoints:
        with pytest.raises(
            ValueError, match=r"no checkpoint in .* can be read; take another --workdir\n  2: .*\n.* 1: "
        ):
            checkpoints.restore(simple, any_run)
        assert checkpoints.steps == [1, 2]
    assert listing(tmp_path) == before


def test_a_checkpoint_of_another_run_is_none_that_is_damaged(simple, tmp_path):
    save(tmp_path, simple, 1, 2, 3)
    DAMAGES["data cut"](tmp_path / "checkpoints" / "3")
    DAMAGES["run gone"](tmp_path / "checkpoints" / "2")
    before = listing(tmp_path)

    def other(run):
        raise ValueError(f"another run: {run['step']}")

    with Checkpoints(tmp_path, 3) as checkpoints, pytest.raises(ValueError, match="^another run: 3$"):
        checkpoints.restore(simple, other)
    assert listing(tmp_path) == before


# Weights by themselves.


def test_weights_are_read_by_themselves_of_any_step(simple, tmp_path):
    save(tmp_path, simple, 2, 4, 6)
    for step in (2, 4, 6):
        # Nothing else is looked at.
        shutil.rmtree(tmp_path / "checkpoints" / str(step) / "rest")
        shutil.rmtree(tmp_path / "checkpoints" / str(step) / "run")
    before = listing(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 2, 6):
            assert_same(checkpoints.restore_weights(step, simple.weights), filled(simple, step).weights)
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5 in .*; the steps there: 2, 4, 6$"):
            checkpoints.restore_weights(5, simple.weights)
    with (
        Checkpoints(tmp_path / "nowhere") as checkpoints,
        pytest.raises(FileNotFoundError, match="the steps there: none"),
    ):
        checkpoints.restore_weights(5, simple.weights)
    assert listing(tmp_path) == before


def test_a_base_is_its_weights_else_its_newest_checkpoint(simple, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"config.base={tmp_path}: neither a folder 'weights' nor a checkpoint"):
        load_weights(tmp_path, simple.weights)
    save(tmp_path, simple, 1, 2)
    assert_same(load_weights(tmp_path, simple.weights), filled(simple, 2).weights)
    for seed in (3, 4):
        save_weights(tmp_path, filled(simple, seed).weights)
        assert_same(load_weights(tmp_path, simple.weights), filled(simple, seed).weights)


@pytest.mark.parametrize("of", ["weights", "checkpoint"])
def test_a_base_of_another_model_is_refused(simple, tmp_path, of):
    if of == "weights":
        save_weights(tmp_path, filled(simple, 1).weights)
    else:
        save(tmp_path, simple, 1)
    for other in (
        simple.weights | {"more": simple.weights["scale"]},
        {"inner": simple.weights["inner"]},
        simple.weights | {"scale": simple.weights["inner"]["kernel"]},
    ):
        with pytest.raises(ValueError, match=f"config.base={tmp_path}: its weights don't fit config.model"):
            load_weights(tmp_path, other)


# A full disk.


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    asked = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"no file system can be mounted here: {asked.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill_disk(folder: Path, leave: int) -> Path:
    path = folder / "filler"
    path.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return path


@pytest.mark.parametrize("leave", [0, 8 * 2**10, 40 * 2**10])
def test_a_full_disk_is_said_and_costs_no_older_checkpoint(simple, small_disk, leave):
    save(small_disk, simple, 3)
    filler = fill_disk(small_disk, leave)
    words = r"could not be written \(.*[Nn]o space left on device.*\); the newest complete one: that of step 3$"
    with pytest.raises(OSError, match=words), Checkpoints(small_disk, 1) as checkpoints:
        checkpoints.save(4, filled(simple, 4), RUN)
        checkpoints.wait()
    assert checkpoints.steps == [3]
    with Checkpoints(small_disk) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 3, simple)
    filler.unlink()
    save(small_disk, simple, 4, keep=1)
    with Checkpoints(small_disk) as checkpoints:
        assert checkpoints.steps == [4]
        assert_restored(checkpoints.restore(simple, any_run), 4, simple)


@pytest.mark.parametrize("where", ["save", "wait_until_finished", "check_for_errors"])
@pytest.mark.parametrize("older", [None, 3])
def test_a_failure_of_orbax_is_an_error_of_the_disk_that_says_what_is_safe(simple, tmp_path, monkeypatch, where, older):
    if older:
        save(tmp_path, simple, older)
    checkpoints = Checkpoints(tmp_path, 2)

    def full(*_, **__):
        raise RuntimeError("commit failed") from OSError(errno.ENOSPC, "No space left on device")

    act = {
        "save": lambda: checkpoints.save(4, filled(simple, 4), RUN),
        "wait_until_finished": checkpoints.wait,
        "check_for_errors": checkpoints.check,
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.manager, where, full)
        with pytest.raises(OSError, match=r"could not be written \(.*No space left on device\)") as caught:
            act()
    assert str(caught.value).endswith("the newest complete one: " + ("that of step 3" if older else "none"))
    checkpoints.manager.close()


def test_the_error_that_ends_a_run_is_not_hidden_by_that_of_closing(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for error, seen in ((KeyError("of the run"), KeyError), (None, OSError)):
        checkpoints = Checkpoints(tmp_path, 2)
        with monkeypatch.context() as patch, pytest.raises(seen), checkpoints:
            patch.setattr(checkpoints.manager, "close", full)
            if error:
                raise error
        checkpoints.manager.close()


def test_what_a_run_is_is_kept_as_json(simple, tmp_path):
    save(tmp_path, simple, 1)
    assert json.loads((tmp_path / "checkpoints" / "1" / "run" / "metadata").read_text()) == RUN | {"step": 1}
