"""`atomically`: a file or a folder is complete, or what it was."""

import os
import stat

import pytest
from etils import epath

from nft_jax.files import TEMPORARY_PREFIX, atomically


@pytest.fixture(params=[lambda path: path, epath.Path], ids=["pathlib", "epath"])
def folder(request, tmp_path):
    """The same folder as `pathlib.Path` and as `epath.Path`."""
    return request.param(tmp_path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomically_writes_a_file_and_makes_missing_parents(folder):
    path = folder / "deep" / "result.json"
    with atomically(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.startswith(TEMPORARY_PREFIX)
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert names(path.parent) == ["result.json"]


def test_atomically_replaces_a_file_and_keeps_it_when_the_block_raises(folder):
    path = folder / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(folder) == ["result.json"]
    with atomically(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_atomically_makes_a_folder_or_leaves_nothing(folder):
    path = folder / "model"
    with pytest.raises(OSError, match="full"), atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("half")
        raise OSError("full")
    assert names(folder) == []
    path.mkdir()  # an empty folder may be replaced
    with atomically(path) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
    assert names(path) == ["config.json"]
    with pytest.raises(OSError, match="empty"), atomically(path) as temporary:
        temporary.mkdir()
    assert names(folder) == ["model"]
    assert names(path) == ["config.json"]


def test_atomically_has_a_file_on_the_disk_before_it_renames_it(tmp_path, monkeypatch):
    path, flushed = tmp_path / "result.json", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append((os.fstat(handle).st_ino, path.read_text())))
    with atomically(path) as temporary:
        temporary.write_text("new")
    assert flushed == [(path.stat().st_ino, "old")]
    assert stat.S_ISREG(path.stat().st_mode)


def test_atomically_raises_when_the_block_writes_nothing(folder):
    with pytest.raises(FileNotFoundError), atomically(folder / "result.json"):
        pass
    assert names(folder) == []
