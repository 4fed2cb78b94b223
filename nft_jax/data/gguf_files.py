"""Opening GGUF files, llama.cpp's format: one file with a model's settings, tokenizer and weights.

The `gguf` package parses them and dequantizes; it is imported on use, because only these files need it.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from nft_jax.data.model_folders import download_hint

_SUFFIX = ".gguf"


class Gguf(NamedTuple):
    """An open GGUF file.

    Attributes:
      values: The metadata by key, such as "llama.block_count".
      tensors: The package's entries of the tensors by name; their data stay in the file until they are used.
    """

    path: Path
    values: dict[str, Any]
    tensors: dict[str, Any]


def is_gguf(path: Path) -> bool:
    """Returns whether a path names a GGUF file, by the end of its name."""
    return path.suffix.lower() == _SUFFIX


def open_gguf(path: Path) -> Gguf:
    """Opens a file; a file that has not changed since is parsed only once.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the `gguf` package is not installed, or the file is broken, one part of several, or no model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {download_hint(path.parent)}")
    status = path.stat()
    return _open(path.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _open(path: Path, size: int, _: int) -> Gguf:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ValueError(f"{path}: GGUF files need the extra [smollm2]; type: pip install 'gguf>=0.17'") from error
    try:
        reader = GGUFReader(path)
        values = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{path} ({size} bytes) is no complete GGUF file, as after a broken download or in a Git LFS pointer; "
            f"download it again ({type(error).__name__}: {error})"
        ) from error
    if reader.byte_order != "I":
        raise ValueError(f"{path} is in the byte order of another kind of machine; download the usual file")
    if values.get("split.count", 1) > 1:
        raise ValueError(
            f"{path} is one of {values['split.count']} parts; merge them by llama.cpp's "
            f"llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf, and name the whole file"
        )
    if values.get("general.type", "model") != "model":
        raise ValueError(f"{path} holds a {values['general.type']}, not a model; name the GGUF file of the model")
    return Gguf(path, values, {tensor.name: tensor for tensor in reader.tensors})
