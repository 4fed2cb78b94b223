"""`Checkpoints`: what is saved comes back, whole and on any mesh."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.checkpoints import RUN, any_run, assert_restored, filled, flip_bit, listing, save
from helpers.experiments import assert_same, build_on_mesh, on_host, small
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.weights import load_weights, save_weights
from nft_jax.state import State
from nft_jax.update.optimizer import make_optimizer


@pytest.fixture(scope="module")
def abstract(tmp_path_factory):
    """`(data, tensor, **changes)`: shapes and layouts of the state of an experiment, on a mesh of that size."""

    def get(data=1, tensor=1, **changes):
        config = small(mesh__data=data, mesh__tensor=tensor, **changes)
        experiment = build_on_mesh(config, tmp_path_factory.getbasetemp() / "tokenizer")
        return experiment.abstract_state(make_optimizer(config.optimizer, 4, experiment.model.axes))

    return get


# What is saved comes back.


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("more", [False, True])
def test_checkpoints_restore_all_parts_bit_for_bit(abstract, tmp_path, optimizer, more):
    parts = {"selection__carry": True, "loss__kl_weight": 0.1} if more else {}
    wanted = abstract(optimizer__name=optimizer, **parts)
    assert (wanted.carried is not None) == (wanted.reference is not None) == more
    save(tmp_path, wanted, 3)
    seen = []
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_restored(checkpoints.restore(wanted, seen.append), 3, wanted)
    assert seen == [RUN | {"step": 3}]


@pytest.mark.parametrize("size", ["prompts_per_step", "selection__candidates_per_round"])
def test_checkpoints_restore_a_state_with_no_room_for_groups_to_carry(abstract, tmp_path, size):
    """Orbax saves no array without elements."""
    wanted = abstract(selection__carry=True, **{size: 1})
    assert all(leaf.size for leaf in jax.tree.leaves(wanted))
    save(tmp_path, wanted, 1)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_restored(checkpoints.restore(wanted, any_run), 1, wanted)


@pytest.mark.parametrize("meshes", [((1, 1), (4, 2)), ((4, 2), (1, 1)), ((4, 2), (2, 4)), ((8, 1), (1, 4))])
def test_checkpoints_restore_onto_another_mesh(abstract, tmp_path, meshes):
    parts = {"selection__carry": True, "loss__kl_weight": 0.1, "model__kv_heads": 4}
    before, after = (abstract(*mesh, **parts) for mesh in meshes)
    save(tmp_path, before, 1)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_restored(checkpoints.restore(after, any_run), 1, after)
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_weights(1, after.weights), filled(after, 1).weights)


def test_checkpoints_restore_nothing_where_nothing_is_saved(simple, tmp_path):
    for keep in (None, 2):
        with Checkpoints(tmp_path, keep) as checkpoints:
            assert (checkpoints.steps, checkpoints.latest) == ([], None)
            assert checkpoints.restore(simple, any_run) is None
            assert "begins anew" in checkpoints.describe_resume()
        assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_reader_sees_what_is_saved_later(simple, tmp_path):
    with Checkpoints(tmp_path) as reader:
        save(tmp_path, simple, 3)
        assert reader.latest == 3
        assert_same(reader.restore_weights(3, simple.weights), filled(simple, 3).weights)


def test_checkpoints_keep_the_last_few(simple, tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        for step in (1, 2, 5, 7):
            checkpoints.save(step, filled(simple, step), RUN)
            checkpoints.wait()
            assert checkpoints.latest == step
        assert checkpoints.steps == [5, 7]
        assert f"resumes from step 7 ({tmp_path}/checkpoints/7)" in checkpoints.describe_resume()
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)
        # A step that is there is not saved again.
        checkpoints.save(7, filled(simple, 1), RUN)
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)


def test_checkpoints_keep_the_best_beside_the_last_few(simple, tmp_path):
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


def test_checkpoints_save_returns_when_the_state_may_be_donated(tmp_path):
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


def test_checkpoints_steps_names_only_complete_ones_during_a_save(simple, tmp_path):
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


def remove_before_reading(monkeypatch, folder):
    """Removes a checkpoint when anything of any is read, as a run does that keeps only newer ones."""
    read = Checkpoints._read

    def remove_and_read(checkpoints, step, **items):
        shutil.rmtree(folder, ignore_errors=True)
        return read(checkpoints, step, **items)

    monkeypatch.setattr(Checkpoints, "_read", remove_and_read)


@pytest.mark.parametrize("removed", ["wholly", "in part"])
def test_checkpoints_read_one_while_the_run_removes_another(simple, tmp_path, monkeypatch, removed):
    save(tmp_path, simple, 1, 2)
    older = tmp_path / "checkpoints" / "1"
    # Orbax's manager lists all steps and then looks at each; one that is removed in between is an error.
    monkeypatch.setattr(Checkpoints, "manager", property(lambda self: pytest.fail("a reader looks at all steps")))
    remove_before_reading(monkeypatch, older if removed == "wholly" else older / "weights")
    with Checkpoints(tmp_path) as reader:
        assert reader.steps == [1, 2]
        assert_restored(reader.restore(simple, any_run), 2, simple)
    with Checkpoints(tmp_path) as reader:
        assert_same(reader.restore_weights(2, simple.weights), filled(simple, 2).weights)
        assert reader.read_run(2)["step"] == 2
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_checkpoints_say_that_the_run_removed_what_is_read(simple, tmp_path, monkeypatch):
    readers = (lambda reader: reader.restore_weights(1, simple.weights), lambda reader: reader.read_run(1))
    for number, read in enumerate(readers):
        folder = tmp_path / str(number)
        save(folder, simple, 1, 2)
        with monkeypatch.context() as patch, Checkpoints(folder) as reader:
            remove_before_reading(patch, folder / "checkpoints" / "1")
            with pytest.raises(FileNotFoundError, match=r"checkpoints/1 was removed while it was read"):
                read(reader)


# Weights by themselves.


def test_checkpoints_restore_weights_reads_the_weights_alone(simple, tmp_path):
    save(tmp_path, simple, 2, 4, 6)
    for step in (2, 4, 6):
        # Nothing else is looked at.
        shutil.rmtree(tmp_path / "checkpoints" / str(step) / "rest")
    before = listing(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 2, 6):
            assert_same(checkpoints.restore_weights(step, simple.weights), filled(simple, step).weights)
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5 in .*; saved steps: 2, 4, 6$"):
            checkpoints.restore_weights(5, simple.weights)
    with (
        Checkpoints(tmp_path / "nowhere") as checkpoints,
        pytest.raises(FileNotFoundError, match="saved steps: none"),
    ):
        checkpoints.restore_weights(5, simple.weights)
    assert listing(tmp_path) == before


def test_load_weights_takes_saved_weights_else_the_newest_checkpoint(simple, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"config.base={tmp_path}: neither a folder 'weights' nor a checkpoint"):
        load_weights(tmp_path, simple.weights)
    save(tmp_path, simple, 1, 2)
    assert_same(load_weights(tmp_path, simple.weights), filled(simple, 2).weights)
    for seed in (3, 4):
        save_weights(tmp_path, filled(simple, seed).weights)
        assert_same(load_weights(tmp_path, simple.weights), filled(simple, seed).weights)


@pytest.mark.parametrize("of", ["weights", "checkpoint"])
def test_load_weights_refuses_another_model(simple, tmp_path, of):
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


def test_load_weights_takes_no_flipped_bit_in_silence(simple, tmp_path):
    """Any one bit of any file: the weights are those that were saved, or they are refused."""
    random, saved, refused = np.random.default_rng(3), filled(simple, 1).weights, 0
    save_weights(tmp_path / "whole", saved)
    files = [path for path in sorted((tmp_path / "whole").rglob("*")) if path.is_file() and path.stat().st_size]
    for _ in range(30):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / "one")
        flip_bit(folder / files[random.integers(len(files))].relative_to(tmp_path / "whole"), random)
        try:
            assert_same(load_weights(folder, simple.weights), saved)
        except ValueError as error:
            assert str(folder) in str(error)
            refused += 1
        shutil.rmtree(folder)
    assert refused > 5


@pytest.mark.parametrize("of", ["weights", "checkpoint"])
def test_load_weights_casts_what_it_has_compared(simple, tmp_path, of):
    """As frozen weights in bfloat16 are read from a run that trained all in float32."""
    saved = filled(simple, 1).weights
    save_weights(tmp_path, saved) if of == "weights" else save(tmp_path, simple, 1)
    narrow = jax.tree.map(lambda x: x.update(dtype=jnp.bfloat16), simple.weights)
    assert_same(load_weights(tmp_path, narrow), jax.tree.map(lambda x: x.astype(jnp.bfloat16), saved))


def test_checkpoints_save_keeps_the_fingerprint_as_json(simple, tmp_path):
    save(tmp_path, simple, 1)
    kept = json.loads((tmp_path / "checkpoints" / "1" / "run" / "metadata").read_text())
    assert kept.pop("digests").keys() == {"weights", "rest", "run"}
    assert kept == RUN | {"step": 1}
