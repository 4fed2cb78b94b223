"""GGUF files: opened, or refused with what to do."""

import builtins

import pytest

from helpers.gguf_models import draw_tensors, write_gguf
from nft_jax.data import gguf_files
from nft_jax.data.gguf_files import is_gguf, open_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A whole file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", draw_tensors("qwen2", 40))


def refusal(path):
    """The message of `open_gguf`, which must refuse the file by name."""
    with pytest.raises(ValueError) as raised:
        open_gguf(path)
    assert path.name in str(raised.value)
    return str(raised.value)


def test_is_gguf_goes_by_the_end_of_the_name(tmp_path):
    assert is_gguf(tmp_path / "a.GGUF")
    assert not is_gguf(tmp_path / "gguf")


def test_open_gguf_reads_values_and_tensors_once(path):
    opened = open_gguf(path)
    assert opened.values["qwen2.block_count"] == 2
    assert opened.tensors["token_embd.weight"].shape.tolist() == [256, 40]
    assert open_gguf(path) is opened


def test_open_gguf_sees_that_a_file_changed(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", draw_tensors("qwen2", 40))
    assert open_gguf(path).values["qwen2.block_count"] == 2
    write_gguf(path, draw_tensors("qwen2", 40), values={"qwen2.block_count": 3, "general.name": "another"})
    assert open_gguf(path).values["qwen2.block_count"] == 3


@pytest.mark.parametrize("share", [0, 1e-5, 1e-3, 0.01, 0.3, 0.7, 0.999])
def test_open_gguf_refuses_a_truncated_file(path, tmp_path, share):
    content = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(share * len(content))])
    assert "download it again" in refusal(cut)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"GGUF" + bytes(99)]
)
def test_open_gguf_refuses_what_is_no_gguf_file(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "download it again" in refusal(path)


def test_open_gguf_refuses_one_part_of_several(tmp_path):
    path = write_gguf(tmp_path / "model-00001-of-00003.gguf", draw_tensors("qwen2", 40), values={"split.count": 3})
    assert "one of 3 parts; merge them by llama.cpp's llama-gguf-split --merge" in refusal(path)


def test_open_gguf_refuses_an_adapter(tmp_path):
    path = write_gguf(tmp_path / "lora.gguf", draw_tensors("qwen2", 40), values={"general.type": "adapter"})
    assert "holds a adapter, not a model" in refusal(path)


def test_open_gguf_names_the_package_that_is_missing(path, monkeypatch):
    imported = builtins.__import__

    def without_gguf(name, *arguments, **options):
        if name == "gguf":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_gguf)
    gguf_files._open.cache_clear()
    assert "pip install 'gguf>=" in refusal(path)


def test_open_gguf_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.gguf: no such file. .*hf download"):
        open_gguf(tmp_path / "none.gguf")
