"""`Checkpoints`: nothing that happens to the files of one step costs another."""

import errno
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.checkpoints import RUN, any_run, assert_restored, filled, flip_bit, listing, save, warnings_of
from helpers.experiments import assert_same
from nft_jax.run.checkpoint import UNFINISHED, Checkpoints

# Half written.


@pytest.mark.parametrize("kind", ["a few files", "all but its name"])
def test_checkpoints_remove_an_unfinished_one_and_a_reader_does_not(simple, tmp_path, caplog, kind):
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
    assert warnings_of(caplog) == []
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert not partial.exists()
        (warning,) = warnings_of(caplog)
        assert str(partial) in warning
        assert "not finished" in warning
        assert_restored(checkpoints.restore(simple, any_run), 5, simple)
        checkpoints.save(7, filled(simple, 7), RUN)
        checkpoints.wait()
        assert_restored(checkpoints.restore(simple, any_run), 7, simple)


# Damaged.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_zeros(path: Path) -> None:
    """What a file system leaves of a file whose length it knew and whose contents it had not written."""
    path.write_bytes(bytes(path.stat().st_size))


def all_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


DAMAGES = {
    "data cut": lambda step: [cut(path) for path in step.glob("*/**/d/*")],
    "data emptied": lambda step: [empty(path) for path in step.glob("*/**/d/*")],
    "weights cut": lambda step: [cut(path) for path in step.glob("weights/**/d/*")],
    "optimizer gone": lambda step: shutil.rmtree(step / "rest"),
    "run gone": lambda step: shutil.rmtree(step / "run"),
    "run cut": lambda step: cut(step / "run" / "metadata"),
    "all emptied": lambda step: [empty(path) for path in all_files(step)],
    "an empty folder": lambda step: [shutil.rmtree(step), step.mkdir()],
    "an empty file": lambda step: [shutil.rmtree(step), step.write_bytes(b"")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoints_restore_skips_and_renames_a_damaged_one(simple, tmp_path, caplog, damage):
    save(tmp_path, simple, 1, 2, 3)
    folder = tmp_path / "checkpoints"
    DAMAGES[damage](folder / "3")
    with Checkpoints(tmp_path, 3) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 2, simple)
        (warning,) = warnings_of(caplog)
        assert warning.startswith(f"checkpoint 3 can't be read; it is skipped and renamed to {folder}/3.damaged: ")
        assert (folder / "3.damaged").exists()
        assert checkpoints.steps == [1, 2]
        # The run takes that step again, and saves it.
        checkpoints.save(3, filled(simple, 3), RUN)
        checkpoints.wait()
    with Checkpoints(tmp_path, 3) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 3, simple)
    assert len(warnings_of(caplog)) == 1


def test_checkpoints_restore_renames_the_same_step_twice(simple, tmp_path):
    for _ in range(2):
        save(tmp_path, simple, 1, 2)
        DAMAGES["data cut"](tmp_path / "checkpoints" / "2")
        with Checkpoints(tmp_path, 2) as checkpoints:
            assert checkpoints.restore(simple, any_run)[0] == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2.damaged"]


@pytest.mark.parametrize("damage", [fill_with_zeros, Path.unlink])
def test_checkpoints_restore_notices_damage_to_any_file(simple, tmp_path, damage):
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


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_checkpoints_restore_takes_no_flipped_bit_in_silence(simple, tmp_path, capsys, count):
    """Any one bit of any file: the state is right bit for bit, or the checkpoint is set aside with a warning."""
    seed = 16
    random = np.random.default_rng(seed)
    save(tmp_path / "whole", simple, 1, 2)
    files = [path for path in all_files(tmp_path / "whole" / "checkpoints" / "2") if path.stat().st_size]
    aside = 0
    for _ in range(count):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / "one")
        path = folder / files[random.integers(len(files))].relative_to(tmp_path / "whole")
        flip_bit(path, random)
        with Checkpoints(folder, 2) as checkpoints:
            restored = checkpoints.restore(simple, any_run)
        assert_restored(restored, restored[0], simple)
        assert (folder / "checkpoints" / "2.damaged").exists() == (restored[0] == 1), path
        aside += restored[0] == 1
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{count} bits flipped (seed {seed}): {aside} set aside, {count - aside} without effect")
    assert aside > count // 5


@pytest.mark.parametrize("damage", [fill_with_zeros, Path.unlink, cut])
def test_checkpoints_readers_take_no_damaged_file_in_silence(simple, tmp_path, damage):
    """What evaluate and export read: whichever file it is, the parts are those that were saved, or refused by name."""
    save(tmp_path / "whole", simple, 1)
    saved, refused = filled(simple, 1).weights, 0
    for path in all_files(tmp_path / "whole" / "checkpoints" / "1"):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / "one")
        damage(folder / path.relative_to(tmp_path / "whole"))
        with Checkpoints(folder) as checkpoints:
            try:
                assert_same(checkpoints.restore_weights(1, simple.weights), saved)
                assert checkpoints.read_run(1) == RUN | {"step": 1}
            except ValueError as error:
                assert str(folder / "checkpoints" / "1") in str(error), path
                assert "\n" not in str(error) and len(str(error)) < 700, error
                refused += 1
        shutil.rmtree(folder)
    assert refused > 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        ValueError("INTERNAL: Error reading local file [OS error 5: EIO Input/output error]"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3000000000 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("part", ["run", "weights"])
def test_checkpoints_restore_changes_nothing_where_the_machine_fails(simple, tmp_path, monkeypatch, error, part):
    save(tmp_path, simple, 1, 2)
    before, read = listing(tmp_path), Checkpoints._read

    def fail(checkpoints, step, **items):
        if part in items:
            raise error
        return read(checkpoints, step, **items)

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with Checkpoints(tmp_path, 2) as checkpoints, pytest.raises(OSError, match="checkpoint 2 can't be read now"):
        checkpoints.restore(simple, any_run)
    assert listing(tmp_path) == before


def test_checkpoints_restore_raises_and_changes_nothing_where_all_are_damaged(simple, tmp_path):
    save(tmp_path, simple, 1, 2)
    for step in ("1", "2"):
        DAMAGES["data cut"](tmp_path / "checkpoints" / step)
    before = listing(tmp_path)
    with Checkpoints(tmp_path, 2) as checkpoints:
        with pytest.raises(
            ValueError, match=r"no checkpoint in .* can be read; give another --workdir\n  2: .*\n.* 1: "
        ):
            checkpoints.restore(simple, any_run)
        assert checkpoints.steps == [1, 2]
    assert listing(tmp_path) == before


def test_checkpoints_a_reader_skips_a_damaged_one_and_changes_nothing(simple, tmp_path, caplog):
    save(tmp_path, simple, 1, 2)
    DAMAGES["data cut"](tmp_path / "checkpoints" / "2")
    before = listing(tmp_path)
    with Checkpoints(tmp_path) as reader:
        assert_restored(reader.restore(simple, any_run), 1, simple)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("checkpoint 2 can't be read; it is skipped: ")
    assert listing(tmp_path) == before


def test_checkpoints_restore_does_not_take_another_run_for_damage(simple, tmp_path):
    save(tmp_path, simple, 1, 2, 3)
    DAMAGES["data cut"](tmp_path / "checkpoints" / "3")
    DAMAGES["run gone"](tmp_path / "checkpoints" / "2")
    before = listing(tmp_path)

    def other(run):
        raise ValueError(f"another run: {run['step']}")

    with Checkpoints(tmp_path, 3) as checkpoints, pytest.raises(ValueError, match="^another run: 3$"):
        checkpoints.restore(simple, other)
    assert listing(tmp_path) == before


# A full disk.


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill_disk(folder: Path, leave: int) -> Path:
    path = folder / "filler"
    path.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return path


@pytest.mark.parametrize("leave", [0, 8 * 2**10, 40 * 2**10])
def test_checkpoints_save_reports_a_full_disk_and_keeps_older_ones(simple, small_disk, leave):
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
def test_checkpoints_turn_a_failure_of_orbax_into_an_os_error(simple, tmp_path, monkeypatch, where, older):
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


def test_checkpoints_exit_does_not_hide_the_error_that_ends_a_run(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for error, seen in ((KeyError("of the run"), KeyError), (None, OSError)):
        checkpoints = Checkpoints(tmp_path, 2)
        with monkeypatch.context() as patch, pytest.raises(seen), checkpoints:
            patch.setattr(checkpoints.manager, "close", full)
            if error:
                raise error
        checkpoints.manager.close()
