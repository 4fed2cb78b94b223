"""Reading and writing the weights of a Hugging Face model folder: names, orientation, dtypes.

Our matrices are `[in, out]`, stacked over layers and their experts; the files have one `[out, in]` tensor for each.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nft_jax.data.gguf_files import is_gguf
from nft_jax.files import json_text
from nft_jax.models.finite import NonFinite, check_finite
from nft_jax.models.hf import gguf
from nft_jax.models.hf.config_json import DTYPES, read_model_settings
from nft_jax.models.hf.headers import INDEX, SINGLE, TensorHeader, read_headers
from nft_jax.models.hf.tensors import TABLES, TOP, Place, find_places
from nft_jax.types import Array

_ROWS_AT_A_TIME = 8192  # of two tables that are compared
_FLOATING = ("F32", "BF16", "F16")
LONGEST = 200  # characters of a tensor in a message


def check_weights(folder: Path, weights: Any) -> dict[str, Path]:
    """Compares the headers of the folder's safetensors files with a tree of shapes; reads no weight.

    Returns:
      The file of each tensor that the tree needs.

    Raises:
      FileNotFoundError: as `read_model_settings`, or if there is no safetensors file.
      ValueError: as `read_model_settings`, or with all faults at once: broken files, and tensors that are missing,
        unknown, truncated, of another shape or dtype, or a head that contradicts a tied embedding.
    """
    headers, faults = (gguf.read_headers(folder), []) if is_gguf(folder) else read_headers(folder)
    needed = _shapes(weights, read_model_settings(folder)["vocab"])
    extra = [name for name in headers if name not in needed and not _is_ignored(name, weights)]
    found = {name: headers[name] for name in needed if name in headers}
    shapes = [
        f"{name} is {list(header.shape)}, not {list(needed[name])}"
        for name, header in found.items()
        if header.shape != needed[name]
    ]
    dtypes = [f"{name} is {header.dtype}" for name, header in found.items() if header.dtype not in _FLOATING]
    faults += _summarize("missing", [name for name in needed if name not in headers] if headers else [])
    faults += _summarize("not of this model", extra)
    faults += _summarize("not of the shape that config.json implies", shapes)
    faults += _summarize(f"none of {', '.join(DTYPES)}", dtypes)
    faults += _summarize("truncated, so download the file again", [name for name in headers if headers[name].is_cut])
    faults += [] if faults or "head" in weights else _head_faults(headers)
    if faults:
        raise ValueError(f"the weights in {folder} can't be used:\n  " + "\n  ".join(faults))
    return {name: found[name].file for name in needed}


def load_weights(folder: Path, weights: Any, convert: Callable = lambda name, weight: weight) -> Any:
    """Reads the folder's weights into the layout of a tree of `ShapeDtypeStruct`s with shardings.

    Each device's piece is read separately, so the host holds one piece of one weight at a time. Table rows beyond the
    file's vocabulary are 0. Each weight is converted by `convert(name, weight)` before the next one is read.

    Raises:
      FileNotFoundError: as `check_weights`.
      ValueError: as `check_weights`, before any weight is read; or with the tensors that hold NaN or inf.
    """
    file_of = check_weights(folder, weights)
    name_of = {(place.weight, *place.index): place.tensor for place in find_places(weights)}
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(_open(path)) for path in set(file_of.values())}

        def tensor(weight, *index):
            name = name_of[weight, *index]
            return files[file_of[name]].get_slice(name)

        def load(path, leaf):
            weight = path[-1].key
            if weight in TOP:
                return _place(leaf, lambda index: _read_rows(tensor(weight), leaf, index))
            stacked = _place(leaf, lambda index: _read_layers(functools.partial(tensor, weight), leaf, index))
            return convert(weight, stacked)

        loaded = jax.tree_util.tree_map_with_path(load, weights)
    advice = f"a model can't be run with these (read as {jax.tree.leaves(weights)[0].dtype.name}); download it again"
    check_finite(loaded, folder, advice, functools.partial(_name_nonfinite, name_of))
    return loaded


def save_weights(
    folder: Path, weights: Any, *, vocab: int, dtype: str = "float32", max_shard_bytes: int = 5 * 2**30
) -> int:
    """Writes the weights as transformers does: `model.safetensors`, or several files and their index.

    Tables are cut to `vocab` rows, and values are rounded to the nearest of `dtype`. One file is in memory at a time.

    Returns:
      How many numbers were written.

    Raises:
      ValueError: if the dtype is not in `DTYPES`, or a weight is beyond the range of float16.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    shapes, width = _shapes(weights, vocab), jnp.dtype(dtype).itemsize
    sizes = {name: int(np.prod(shape)) * width for name, shape in shapes.items()}
    shards = _split_files(sizes, max_shard_bytes)
    places = {place.tensor: place for place in find_places(weights)}
    file_of = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file_of |= dict.fromkeys(names, file)
        tensors = {name: _round(name, _host_tensor(weights, places[name], vocab), dtype) for name in names}
        write_tensors(folder / file, tensors)
        del tensors
    total = sum(sizes.values())
    if len(shards) > 1:
        index = {"metadata": {"total_parameters": total // width, "total_size": total}, "weight_map": file_of}
        (folder / INDEX).write_text(json_text(index, 2, sort_keys=True) + "\n", encoding="utf-8")
    return total // width


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a file with the usual permissions; the library's own files are readable by their owner only."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def _name_nonfinite(name_of: dict[tuple, str], found: NonFinite) -> str:
    """Returns the tensor that holds NaN or inf; of experts, the first one's, which all are searched together."""
    # A layer's weight may have parts of its own: the scales of a matrix in int8.
    place = (found.path[-1],) if found.layer is None else (found.path[1], found.layer)
    return name_of.get(place) or f"{name_of[*place, 0]} or that of another expert"


def _shapes(weights: Any, vocab: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor of the files."""

    def shape(name, index):
        if index:
            return weights["blocks"][name].shape[len(index) :][::-1]
        return (vocab, *weights[name].shape[1:]) if name in TABLES else weights[name].shape

    return {place.tensor: tuple(shape(place.weight, place.index)) for place in find_places(weights)}


def _is_ignored(name: str, weights: Any) -> bool:
    """Returns whether a tensor is redundant: rotary frequencies, or the second table of a tied model."""
    return name.endswith(".rotary_emb.inv_freq") or (name == TOP["head"] and "head" not in weights)


def _head_faults(headers: dict[str, TensorHeader]) -> list[str]:
    """Returns a line if the files of a tied model have a head that differs from its embedding."""
    names = [TOP["embedding"], TOP["head"]]
    if names[1] not in headers:
        return []
    shapes = [headers[name].shape for name in names]
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(_open(headers[name].file)).get_slice(name) for name in names)
        starts = range(0, shapes[0][0], _ROWS_AT_A_TIME)
        parts = (slice(start, min(start + _ROWS_AT_A_TIME, shapes[0][0])) for start in starts)
        if shapes[0] == shapes[1] and all(np.array_equal(first[part, :], second[part, :]) for part in parts):
            return []
    return [
        f"{names[1]} differs from {names[0]}, though config.json ties them; transformers 5 reads such a model untied: "
        f"set tie_word_embeddings to false in config.json to train it so"
    ]


def _summarize(fault: str, tensors: list[str], most: int = 8) -> list[str]:
    """Returns one line about all tensors with the same fault, or no line if there are none."""
    more = f", … and {len(tensors) - most} more" if len(tensors) > most else ""
    # Names and formats are the file's, and may be of any length.
    named = [text if len(text) <= LONGEST else f"{text[:LONGEST]} …" for text in tensors[:most]]
    return [f"{fault}: {', '.join(named)}{more}"] if tensors else []


def _open(path: Path) -> Any:
    if is_gguf(path):
        return contextlib.nullcontext(gguf.GgufTensors(path))
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is broken: {error}; download it again") from error


def _place(leaf: jax.ShapeDtypeStruct, read: Callable[[tuple[slice, ...]], np.ndarray]) -> Array:
    """Makes an array of the pieces that `read` returns, with one piece on the host at a time.

    A CPU device may keep the memory that it is given, and a donated weight is overwritten. So each device needs its own
    memory, which `jax.make_array_from_callback` does not guarantee.
    """
    pieces = [
        jax.block_until_ready(jax.device_put(read(index), device))
        for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items()
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, pieces)


def _read_rows(tensor: Any, leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> np.ndarray:
    """Reads the piece `index` of a table or a norm; rows beyond those of the file are 0."""
    (start, stop), *inner = _spans(leaf, index)
    piece = np.zeros((stop - start, *(end - begin for begin, end in inner)), leaf.dtype)
    rows = min(stop, tensor.get_shape()[0]) - start
    if rows > 0:
        piece[:rows] = tensor[(slice(start, start + rows), *(slice(*span) for span in inner))]
    return piece


def _read_layers(tensor: Callable[..., Any], leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> np.ndarray:
    """Reads the piece `index` of a weight of all layers, and transposes each `tensor(layer)` or `(layer, expert)`."""
    spans = _spans(leaf, index)
    outer, inner = (spans[:-2], spans[-2:]) if leaf.ndim > 3 else (spans[:1], spans[1:])
    piece = np.empty([end - begin for begin, end in spans], leaf.dtype)
    for place in itertools.product(*(range(*span) for span in outer)):
        row = tuple(at - begin for at, (begin, _) in zip(place, outer, strict=True))
        piece[row] = tensor(*place)[tuple(slice(*span) for span in reversed(inner))].T
    return piece


def _spans(leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> list[tuple[int, int]]:
    """Returns the start and stop of the piece along each axis."""
    return [part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True)]


def _split_files(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Splits the names, in order, into files of at most `limit` bytes; a larger tensor gets a file for itself."""
    shards, used = [], limit
    for name, size in sizes.items():
        if not shards or used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _host_tensor(weights: Any, place: Place, vocab: int) -> np.ndarray:
    """Returns one tensor of the files, on the host."""
    if place.index:
        return np.asarray(weights["blocks"][place.weight][place.index]).T
    whole = np.asarray(weights[place.weight])
    return whole[:vocab] if place.weight in TABLES else whole


def _round(name: str, value: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds the tensor to `dtype`, in contiguous memory, which safetensors writes as it is."""
    if dtype == "float16" and np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(f"{name} has values beyond float16, which ends at 65504; use bfloat16 or float32")
    return np.ascontiguousarray(value.astype(jnp.dtype(dtype), order="C"))
