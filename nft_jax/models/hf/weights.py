"""The weights of a Hugging Face Qwen2 model folder: names, orientation, dtypes; in and out.

Our matrices are `[in, out]` and those of all layers stacked; the files hold one `[out, in]` tensor a layer.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nft_jax.models.hf.config_json import DTYPES, read_model_settings
from nft_jax.models.hf.headers import INDEX, SINGLE, read_headers
from nft_jax.types import Array

_TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
# In the order of transformers, which decides what lies together in one of several files.
_LAYER = {
    "query": "self_attn.q_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key": "self_attn.k_proj.weight",
    "key_bias": "self_attn.k_proj.bias",
    "value": "self_attn.v_proj.weight",
    "value_bias": "self_attn.v_proj.bias",
    "output": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
}
_TABLES = ("embedding", "head")
_FLOATING = ("F32", "BF16", "F16")


def check_weights(folder: Path, weights: Any) -> dict[str, Path]:
    """Compares the headers of the folder's safetensors files with a tree of shapes; reads no weight.

    Returns the file of each tensor that the tree needs.

    Raises:
      FileNotFoundError, ValueError: as `model_settings`, or no safetensors file.
      ValueError: all faults at once: tensors missing, unknown, of another shape or dtype, or cut off; broken files.
    """
    stored, faults = read_headers(folder)
    needed = _shapes(weights, read_model_settings(folder)["vocab"])
    extra = [name for name in stored if name not in needed and not _is_ignored(name, weights)]
    wrong = [
        f"{name} is {list(stored[name].shape)}, not {list(shape)}"
        for name, shape in needed.items()
        if name in stored and stored[name].shape != shape
    ]
    kinds = [
        f"{name} is {stored[name].dtype}" for name in needed if name in stored and stored[name].dtype not in _FLOATING
    ]
    faults += _listed("missing", [name for name in needed if name not in stored] if stored else [])
    faults += _listed("not of this model", extra)
    faults += _listed("of a shape that config.json doesn't say", wrong)
    faults += _listed(f"neither of {', '.join(DTYPES)}", kinds)
    faults += _listed("cut off, as the file is too short; download it again", [n for n in stored if stored[n].is_cut])
    if faults:
        raise ValueError(f"the weights in {folder} can't be used:\n  " + "\n  ".join(faults))
    return {name: stored[name].file for name in needed}


def load_weights(folder: Path, weights: Any) -> Any:
    """Reads the folder's weights into a tree of `ShapeDtypeStruct`s with shardings.

    Each device's piece is read by itself, so that the host holds one piece of one weight at a time. Rows of a table
    beyond the file's vocabulary are 0.

    Raises:
      FileNotFoundError, ValueError: as `check_weights`, before anything is read.
    """
    file_of = check_weights(folder, weights)
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(_opened(path)) for path in set(file_of.values())}

        def tensor(name):
            return files[file_of[name]].get_slice(name)

        def load(path, leaf):
            name = path[-1].key
            if name in _TOP:
                return _placed(leaf, lambda index: _read_rows(tensor(_TOP[name]), leaf, index))
            return _placed(leaf, lambda index: _read_layers(lambda i: tensor(_of_layer(i, name)), leaf, index))

        return jax.tree_util.tree_map_with_path(load, weights)


def save_weights(
    folder: Path, weights: Any, *, vocab: int, dtype: str = "float32", max_shard_bytes: int = 5 * 2**30
) -> int:
    """Writes the weights as transformers would: `model.safetensors`, or several files and their index.

    Tables are cut to `vocab` rows; values are rounded to the nearest of `dtype`. One file is in memory at a time.
    A model without biases on query, key and value gets zero ones, which a Qwen2 always has. Returns how many numbers
    were written.

    Raises:
      ValueError: for a dtype that is none of `DTYPES`, or a weight beyond the range of float16.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: use one of {', '.join(DTYPES)}")
    weights = _with_biases(weights)
    shapes, width = _shapes(weights, vocab), jnp.dtype(dtype).itemsize
    sizes = {name: int(np.prod(shape)) * width for name, shape in shapes.items()}
    shards = _shards(sizes, max_shard_bytes)
    places = {name: place for name, *place in _places(weights)}
    file_of = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file_of |= dict.fromkeys(names, file)
        tensors = {name: _rounded(name, _tensor(weights, *places[name], vocab), dtype) for name in names}
        _write(folder / file, tensors)
        del tensors
    total = sum(sizes.values())
    if len(shards) > 1:
        index = {"metadata": {"total_parameters": total // width, "total_size": total}, "weight_map": file_of}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return total // width


def _write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A file as others in its folder: the library's own could be read by nobody but their owner."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def _places(weights: Any) -> Iterator[tuple[str, str, int | None]]:
    """`(name in the files, name of our weight, layer)` of each tensor, in the order of transformers."""
    blocks = weights["blocks"]
    yield _TOP["embedding"], "embedding", None
    for layer in range(blocks["query"].shape[0]):
        yield from ((_of_layer(layer, name), name, layer) for name in _LAYER if name in blocks)
    yield from ((_TOP[name], name, None) for name in ("norm", "head") if name in weights)


def _of_layer(layer: int, name: str) -> str:
    return f"model.layers.{layer}.{_LAYER[name]}"


def _shapes(weights: Any, vocab: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the files."""

    def shape(name, layer):
        if layer is not None:
            return weights["blocks"][name].shape[:0:-1]
        return (vocab, *weights[name].shape[1:]) if name in _TABLES else weights[name].shape

    return {theirs: tuple(shape(ours, layer)) for theirs, ours, layer in _places(weights)}


def _is_ignored(name: str, weights: Any) -> bool:
    """Whether a tensor says nothing: frequencies that follow from config.json, or a tied model's second table."""
    return name.endswith(".rotary_emb.inv_freq") or (name == _TOP["head"] and "head" not in weights)


def _listed(what: str, words: list[str], shown: int = 8) -> list[str]:
    """One line on all tensors with the same fault, or none."""
    more = f", … and {len(words) - shown} more" if len(words) > shown else ""
    return [f"{what}: {', '.join(words[:shown])}{more}"] if words else []


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is broken: {error}; download it again") from error


def _placed(leaf: jax.ShapeDtypeStruct, read: Callable[[tuple[slice, ...]], np.ndarray]) -> Array:
    """The array whose pieces `read` gives, one piece on the host at a time.

    A CPU device may keep the very memory that it is given, and a donated weight is overwritten: each device gets its
    own, which `jax.make_array_from_callback` doesn't promise.
    """
    pieces = [
        jax.block_until_ready(jax.device_put(read(index), device))
        for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items()
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, pieces)


def _read_rows(tensor: Any, leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> np.ndarray:
    """The piece `index` of a table or a norm; 0 where the file has no more rows."""
    (start, stop), *inner = _spans(leaf, index)
    piece = np.zeros((stop - start, *(end - begin for begin, end in inner)), leaf.dtype)
    rows = min(stop, tensor.get_shape()[0]) - start
    if rows > 0:
        piece[:rows] = tensor[(slice(start, start + rows), *(slice(*span) for span in inner))]
    return piece


def _read_layers(tensor: Callable[[int], Any], leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> np.ndarray:
    """The piece `index` of a weight of all layers; `tensor(layer)` is transposed."""
    layers, *inner = _spans(leaf, index)
    piece = np.empty([end - begin for begin, end in (layers, *inner)], leaf.dtype)
    for place, layer in enumerate(range(*layers)):
        piece[place] = tensor(layer)[tuple(slice(*span) for span in reversed(inner))].T
    return piece


def _spans(leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...]) -> list[tuple[int, int]]:
    return [part.indices(size)[:2] for part, size in zip(index, leaf.shape, strict=True)]


def _with_biases(weights: Any) -> Any:
    blocks = weights["blocks"]
    zeros = {
        f"{name}_bias": np.zeros((blocks[name].shape[0], blocks[name].shape[-1]), np.float32)
        for name in ("query", "key", "value")
    }
    return weights | {"blocks": zeros | blocks}


def _shards(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """The names, in order, cut where a file would exceed `limit` bytes; a larger tensor has its own file."""
    shards, used = [], limit
    for name, size in sizes.items():
        if not shards or used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _tensor(weights: Any, name: str, layer: int | None, vocab: int) -> np.ndarray:
    """One tensor of the files, on the host."""
    if layer is not None:
        return np.asarray(weights["blocks"][name][layer]).T
    whole = np.asarray(weights[name])
    return whole[:vocab] if name in _TABLES else whole


def _rounded(name: str, value: np.ndarray, dtype: str) -> np.ndarray:
    """The tensor in `dtype`, one behind the other in memory: safetensors writes memory as it lies."""
    if dtype == "float16" and np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(f"{name} has values beyond float16, which ends at 65504; use bfloat16 or float32")
    return np.ascontiguousarray(value.astype(jnp.dtype(dtype), order="C"))
