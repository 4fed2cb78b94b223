"""Headers of safetensors files: broken files, broken indexes, and folders without any."""

import json
import os

import pytest

from helpers.model_folders import CONFIG, SETTINGS, abstract_weights, random_tensors, weight_faults, write_model
from helpers.small_parts import one_device
from nft_jax.models import hf

BROKEN_FILES = {
    "empty": b"",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "no JSON": (5).to_bytes(8, "little") + b"{'a':" + bytes(99),
    "no object": (2).to_bytes(8, "little") + b"[]" + bytes(99),
    "no entries": (9).to_bytes(8, "little") + b'{"a": {}}' + bytes(99),
    "more behind": (2).to_bytes(8, "little") + b"{}" + bytes(99),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_read_headers_of_an_unreadable_file(tmp_path, name):
    folder = write_model(tmp_path, random_tensors(), files=3)
    (folder / "model-00002-of-00003.safetensors").write_bytes(BROKEN_FILES[name])
    message = weight_faults(folder)
    assert f"model-00002-of-00003.safetensors ({len(BROKEN_FILES[name])} bytes) has no readable header" in message
    assert "missing: model.layers.0" in message


def test_read_headers_of_an_index_and_its_files(tmp_path):
    folder = write_model(tmp_path, random_tensors(), files=3)
    (folder / "model-00002-of-00003.safetensors").rename(folder / "elsewhere.safetensors")
    assert "index.json names model-00002-of-00003.safetensors, which is missing" in weight_faults(folder)
    index = folder / "model.safetensors.index.json"
    place = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": place | {"x": "elsewhere.safetensors", "y": "copy.safetensors"}}))
    (folder / "copy.safetensors").write_bytes((folder / "elsewhere.safetensors").read_bytes())
    assert "is in both copy.safetensors and elsewhere.safetensors" in weight_faults(folder)
    index.write_text("{}")
    assert "index.json is no index of safetensors files" in weight_faults(folder)


def test_read_headers_of_a_folder_without_safetensors(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    abstract = abstract_weights(hf.resolve_model(CONFIG, tmp_path), one_device())
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor .*hf download"):
        hf.load_weights(tmp_path, abstract)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never unpickled")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin, and only safetensors are read. .*save_pretrained"):
        hf.load_weights(tmp_path, abstract)


@pytest.mark.parametrize("name", ["../{file}", "parts/{file}", "{folder}/{file}", "..", "", "parts/"])
def test_read_headers_refuses_names_in_other_folders(tmp_path, name):
    """A name that leaves the folder must not be opened, and one with a folder in it is not how folders are written."""
    folder = write_model(tmp_path / "model", random_tensors(), files=2)
    file = "model-00001-of-00002.safetensors"
    for place in (tmp_path, folder / "parts"):
        place.mkdir(exist_ok=True)
        (place / file).write_bytes((folder / file).read_bytes())
    name, index = name.format(file=file, folder=tmp_path), folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    place = {tensor: name if where == file else where for tensor, where in values["weight_map"].items()}
    index.write_text(json.dumps({"weight_map": place}))
    assert f"index.json names {name}, which is " in weight_faults(folder)


def test_read_headers_of_files_that_are_no_regular_files(tmp_path):
    """A pipe would wait for a writer, and a link in a circle has no end."""
    folder = write_model(tmp_path, random_tensors(), files=3)
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)), 1):
        path = folder / f"model-{number:05d}-of-00003.safetensors"
        path.unlink()
        make(path)
    with pytest.raises(
        ValueError, match="no file on a disk, but .*: model-00001-.* model-00002-.* model-00003-"
    ) as got:
        hf.read_model_settings(folder)
    assert str(folder) in str(got.value)


def test_read_headers_says_that_a_file_is_packed(tmp_path):
    folder = write_model(tmp_path, random_tensors(), files=2)
    path = folder / "model-00002-of-00002.safetensors"
    path.rename(f"{path}.gz")
    assert f"names {path.name}, which is missing; gunzip {path.name}.gz" in weight_faults(folder)


def test_read_headers_refuses_a_header_of_gigabytes_unread(tmp_path):
    folder = write_model(tmp_path, random_tensors())
    with open(folder / "model.safetensors", "wb") as file:
        file.write((2**31).to_bytes(8, "little"))
        os.truncate(file.fileno(), 2**32)
    assert "its length of 2147483648 bytes exceeds" in weight_faults(folder)


HOSTILE_ENTRIES = {
    "negative size": {"dtype": "F32", "shape": [-1, 32], "data_offsets": [0, 8]},
    "not a number": {"dtype": "F32", "shape": [float("nan")], "data_offsets": [float("nan"), 8]},
    "begins before the data": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
    "ends before it begins": {"dtype": "F32", "shape": [2], "data_offsets": [0, -8]},
    "huge": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 2**200]},
    "no shape": {"dtype": "F32", "shape": None, "data_offsets": [0, 8]},
    "kinds": {"dtype": [], "shape": "ab", "data_offsets": [0, 8]},
}


@pytest.mark.parametrize("name", HOSTILE_ENTRIES)
def test_read_headers_refuses_hostile_entries(tmp_path, name):
    folder = write_model(tmp_path, random_tensors())
    content = json.dumps({"model.norm.weight": HOSTILE_ENTRIES[name]}).encode()
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + bytes(8))
    assert "can't be used" in weight_faults(folder)


def test_read_headers_refuses_deep_json(tmp_path):
    folder = write_model(tmp_path, random_tensors())
    content = b'{"a":' * 100_000
    (folder / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert "has no readable header" in weight_faults(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_bytes(content)
    assert "is no index of safetensors files" in weight_faults(folder)
