"""The headers of a folder's safetensors files: which tensors there are, without reading one.

Read here and not by the safetensors library, which refuses a file that was cut off without saying what it lacks.
"""

import json
from pathlib import Path
from typing import NamedTuple

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorHeader(NamedTuple):
    """A tensor as its file's header describes it; `is_cut` where the file ends before the tensor does."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    is_cut: bool


def read_headers(folder: Path) -> tuple[dict[str, TensorHeader], list[str]]:
    """The tensors of the folder's weights, and what is wrong with its files.

    Raises:
      FileNotFoundError: there are no weights.
      ValueError: there are none in the safetensors format.
    """
    names, faults = _files(folder)
    stored = {}
    for name in names:
        path = folder / name
        try:
            found = _read_header(path)
        except FileNotFoundError:
            faults.append(f"{INDEX} names {name}, which isn't there; download it")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            faults.append(
                f"{name} ({path.stat().st_size} bytes) has no readable header, as after a broken download or in a "
                f"Git LFS pointer; download it again ({type(error).__name__}: {error})"
            )
        else:
            faults += [
                f"{tensor} is in both {stored[tensor].file.name} and {name}" for tensor in found if tensor in stored
            ]
            stored |= found
    return stored, faults


def _files(folder):
    """Names of the files with weights, and faults of their index."""
    if (folder / SINGLE).is_file():
        return [SINGLE], []
    index = folder / INDEX
    if not index.is_file():
        _raise_none(folder)
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [], [f"{INDEX} is no index of safetensors files; download it again ({type(error).__name__}: {error})"]
    return names, []


def _raise_none(folder):
    if other := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)):
        raise ValueError(
            f"{folder} has its weights in {other[0]}, and only safetensors are read. Convert them, where PyTorch is: "
            f'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    raise FileNotFoundError(
        f"{folder}: neither {SINGLE} nor {INDEX} in it. A model of the Hugging Face hub is downloaded by "
        f"hf download OWNER/NAME --local-dir {folder}"
    )


def _read_header(path):
    """The tensors of one file: 8 bytes with the length of the JSON that follows; then the data, gapless."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"it would be {length} bytes long")
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    start, end, stored = 8 + length, 0, {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = entry["data_offsets"]
        if begin != end or after < begin:
            raise ValueError(f"{name} begins at {begin}, not at {end}")
        end = after
        stored[name] = TensorHeader(path, entry["dtype"], tuple(entry["shape"]), start + end > size)
    if start + end < size:
        raise ValueError(f"{size - start - end} bytes follow the last tensor")
    return stored
