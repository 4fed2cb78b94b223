"""Headers of safetensors files: broken files, broken indexes, and folders without any."""

import json

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
    with pytest.raises(ValueError, match=r"pytorch_model.bin, and only safetensors are read. .*save_pretrained"):
        hf.load_weights(tmp_path, abstract)
