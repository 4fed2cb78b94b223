"""The headers of a folder's safetensors files, which list the tensors; no tensor is read.

The safetensors library is not used because it refuses a truncated file without naming the tensors that are missing.
"""

from pathlib import Path
from typing import NamedTuple

from nft_jax.data.model_folders import describe_contents, read_json_object
from nft_jax.files import parse_json

_MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorHeader(NamedTuple):
    """The entry of a tensor in its file's header.

    Attributes:
      dtype: Its dtype in safetensors' words, such as "BF16".
      is_cut: Whether the file ends before the tensor does.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    is_cut: bool


def read_headers(folder: Path) -> tuple[dict[str, TensorHeader], list[str]]:
    """Returns the tensors of the folder by name, and a line for each fault of its files.

    Raises:
      FileNotFoundError: if there are no weights; it says what the folder holds instead.
    """
    names, faults = _weight_files(folder)
    headers = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            packed = (folder / f"{name}.gz").is_file()
            faults.append(f"{INDEX} names {name}, which is missing; {f'gunzip {name}.gz' if packed else 'download it'}")
            continue
        try:
            tensors = _read_header(path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            faults.append(
                f"{name} ({path.stat().st_size} bytes) has no readable header, as after a broken download or in a "
                f"Git LFS pointer; download it again ({type(error).__name__}: {error})"
            )
        else:
            faults += [f"{each} is in both {headers[each].file.name} and {name}" for each in tensors if each in headers]
            headers |= tensors
    return headers, faults


def _weight_files(folder):
    """Returns the names of the files with weights, and the faults of their index."""
    if (folder / SINGLE).is_file():
        return [SINGLE], []
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"{folder}: neither {SINGLE} nor {INDEX} in it. {describe_contents(folder)}")
    try:
        names = sorted({str(name) for name in read_json_object(index)["weight_map"].values()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [], [f"{INDEX} is no index of safetensors files; download it again ({type(error).__name__}: {error})"]
    elsewhere = [name for name in names if Path(name).name != name]
    faults = [f"{INDEX} names {name}, which is no file name; correct it, and put the file in it" for name in elsewhere]
    return [name for name in names if name not in elsewhere], faults


def _read_header(path):
    """Returns the tensors of one file: 8 bytes hold the length of the JSON that follows; the data comes after it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise ValueError(f"its length of {length} bytes exceeds the file, or the format's limit")
        entries = parse_json(file.read(length))
    entries.pop("__metadata__", None)
    start, end, headers = 8 + length, 0, {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = entry["data_offsets"]
        if begin != end or after < begin:
            raise ValueError(f"{name} begins at {begin}, not at {end}")
        end = after
        headers[name] = TensorHeader(path, entry["dtype"], tuple(entry["shape"]), start + end > size)
    if start + end < size:
        raise ValueError(f"{size - start - end} bytes follow the last tensor")
    return headers
