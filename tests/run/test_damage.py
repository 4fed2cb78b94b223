"""Kinds of errors: a full disk, and nothing else, is worth the advice to make room; names of the folders of steps."""

import errno
from pathlib import Path

import pytest

from helpers.checkpoints import any_run, assert_restored, save
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.damage import is_disk_full


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


WORDS = ValueError("RESOURCE_EXHAUSTED: Error writing x: Failed to write 325 bytes to file 34: No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        caused(OSError("a checkpoint could not be written (…); the newest complete one: none"), WORDS),
        caused(RuntimeError("commit failed"), OSError(errno.ENOSPC, "")),
    ],
    ids=["no space", "quota", "words of TensorStore", "a cause"],
)
def test_is_disk_full_knows_it_by_number_and_by_words(error):
    assert is_disk_full(error)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EACCES, errno.EROFS, errno.ESTALE, errno.EMFILE])
def test_is_disk_full_is_not_said_of_other_errors(number):
    assert not is_disk_full(OSError(number, "of another kind"))
    assert not is_disk_full(caused(OSError("a checkpoint could not be written"), OSError(number, "of another kind")))


@pytest.mark.parametrize("name", ["026", "00", "²", "١", "٢٦", "𝟙"])
def test_checkpoints_refuse_a_folder_whose_name_only_looks_like_a_step(simple, tmp_path, name):
    save(tmp_path, simple, 1, 2)
    (tmp_path / "checkpoints" / "2").rename(tmp_path / "checkpoints" / name)
    with (
        Checkpoints(tmp_path) as reader,
        pytest.raises(ValueError, match=f"checkpoints/{name}: a run names the folder"),
    ):
        _ = reader.latest
    (tmp_path / "checkpoints" / name).rename(tmp_path / "checkpoints" / "2")
    with Checkpoints(tmp_path) as reader:
        assert_restored(reader.restore(simple, any_run), 2, simple)


def test_checkpoints_set_a_damaged_one_aside_where_a_file_has_its_name(simple, tmp_path):
    save(tmp_path, simple, 1, 2)
    (tmp_path / "checkpoints" / "2.damaged").write_text("")
    for path in Path(tmp_path / "checkpoints" / "2").rglob("d/*"):
        path.write_bytes(b"")
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert_restored(checkpoints.restore(simple, any_run), 1, simple)
    assert (tmp_path / "checkpoints" / "2.damaged").is_dir()
