"""A GGUF file as a Hugging Face model: the values of a config.json, and tensors by Hugging Face's names.

llama.cpp orders the rows of query and key of the architecture "llama" for its own rotary positions: the pairs (i, i +
D/2) of a head stand beside each other. They are put back here.
"""

from pathlib import Path
from typing import Any

import numpy as np

from nft_jax.data.gguf_files import Gguf, open_gguf
from nft_jax.data.gguf_tokenizer import eos_ids
from nft_jax.models.hf.headers import TensorHeader
from nft_jax.names import quote, unknown

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# Settings, whose keys follow the name of the architecture, and their keys in config.json.
_SETTINGS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_SCALING = {
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "attn_factor": "attention_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The factors by which Llama 3's rope scaling divides the rotary frequencies.
_FREQUENCIES = "rope_freqs.weight"


def read_config(path: Path) -> dict[str, Any]:
    """Returns the values of the config.json that the file's model has in its Hugging Face folder.

    Raises:
      FileNotFoundError: as `open_gguf`.
      ValueError: as `open_gguf`, or if the architecture is unknown, or settings are missing, unknown or contradictory.
    """
    gguf = open_gguf(path)
    architecture = gguf.values.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"{path}: {unknown('GGUF architecture', architecture, _ARCHITECTURES)}")
    prefix = f"{architecture}."
    given = {key.removeprefix(prefix): v for key, v in gguf.values.items() if key.startswith(prefix)}
    given = {"rope.freq_base": 10000.0, "attention.head_count_kv": given.get("attention.head_count")} | given
    scaling = {key: given.pop(f"rope.scaling.{key}") for key in _SCALING if f"rope.scaling.{key}" in given}
    sizes = {key: given[key] for key in _HEAD_SIZES if key in given}
    faults = [f"{prefix}{key}: missing" for key in _SETTINGS if given.get(key) is None]
    faults += [f"{prefix}{key}: {quote(v)} is not one number" for key, v in given.items() if _is_list(key, v)]
    faults += [f"{prefix}{key}: {quote(v)} is not read" for key, v in given.items() if _is_unknown(key, v)]
    table = gguf.tensors.get("token_embd.weight")
    faults += ["token_embd.weight: missing, or no matrix"] * (table is None or len(table.shape) != 2)
    if len({repr(size) for size in sizes.values()}) > 1:
        faults.append(f"sizes of a head that differ are not implemented: {sizes}")
    if faults:
        raise ValueError(f"{path} can't be used:\n  " + "\n  ".join(faults))
    values = {name: _shortest(given[key]) for key, name in _SETTINGS.items()}
    if sizes:
        values["head_dim"] = next(iter(sizes.values()))
    values["rope_parameters"] = {"rope_theta": values["rope_theta"]} | _read_scaling(gguf, scaling, values)
    if architecture == "llama" and "blk.0.attn_q.bias" in gguf.tensors:
        values["attention_bias"] = True
    return values | {
        "architectures": [_ARCHITECTURES[architecture]],
        "model_type": architecture,
        "dtype": _dtype(gguf),
        "hidden_act": "silu",
        "bos_token_id": gguf.values.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos_ids(gguf),
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "vocab_size": int(table.shape[1]),
    }


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Returns the tensors by their Hugging Face names, and by their own where they have none; reads no data."""
    tensors = open_gguf(path).tensors.values()
    return {
        rename(tensor.name): TensorHeader(path, "F32", tuple(map(int, reversed(tensor.shape))), is_cut=False)
        for tensor in tensors
        if tensor.name != _FREQUENCIES
    }


def rename(name: str) -> str:
    """Returns the Hugging Face name of a tensor, or the name as it is if it is unknown.

    "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight".
    """
    stem, _, kind = name.rpartition(".")
    block, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if block == "blk" and layer.isdigit() and part in _LAYER:
        return f"model.layers.{layer}.{_LAYER[part]}.{kind}"
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else name


class GgufTensors:
    """The tensors of a file by their Hugging Face names, dequantized to float32 as they are read."""

    def __init__(self, path: Path):
        gguf = open_gguf(path)
        self._tensors = {rename(tensor.name): tensor for tensor in gguf.tensors.values()}
        self._config = read_config(path)

    def get_slice(self, name: str) -> "_Rows":
        """Returns a tensor whose pieces are read by `[rows, columns]`, both slices."""
        heads = None
        if self._config["model_type"] == "llama":
            if ".q_proj." in name:
                heads = self._config["num_attention_heads"]
            elif ".k_proj." in name:
                heads = self._config["num_key_value_heads"]
        return _Rows(self._tensors[name], heads)


class _Rows:
    """A tensor in the file; a piece is read and dequantized row by row."""

    def __init__(self, tensor: Any, heads: int | None):
        self._tensor = tensor
        self._order = None
        if heads is not None:
            self._order = np.arange(len(tensor.data)).reshape(heads, -1, 2).swapaxes(1, 2).ravel()

    def get_shape(self) -> list[int]:
        return [int(size) for size in reversed(self._tensor.shape)]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        from gguf import dequantize

        rows, *columns = index
        picked = rows if self._order is None else self._order[rows]
        return dequantize(self._tensor.data[picked], self._tensor.tensor_type)[(slice(None), *columns)]


def _is_list(key: str, value: Any) -> bool:
    return key in (*_SETTINGS, *_HEAD_SIZES) and value is not None and not isinstance(value, int | float)


def _is_unknown(key: str, value: Any) -> bool:
    """Returns whether a setting changes the model in a way that is not read; 0, false and nothing change none."""
    return key not in (*_SETTINGS, *_HEAD_SIZES, "vocab_size") and value not in (0, False, None, "")


def _shortest(value: Any) -> Any:
    """Returns a float32 as the shortest decimal that rounds to it, as config.json has it: 1e-5, not 9.99999975e-6."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _dtype(gguf: Gguf) -> str:
    """Returns the dtype of the file's matrices; what is quantized becomes float32."""
    kinds = {tensor.tensor_type.name for tensor in gguf.tensors.values() if len(tensor.shape) > 1}
    return {"F16": "float16", "BF16": "bfloat16"}.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"


def _read_scaling(gguf: Gguf, scaling: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of `rope_parameters` that scale the rotary frequencies.

    Raises:
      ValueError: if the factors in the file are not those of Llama 3's scaling.
    """
    if _FREQUENCIES not in gguf.tensors:
        if scaling.get("type", "none") == "none":
            return {"rope_type": "default"}
        return {_SCALING[key]: _shortest(value) for key, value in scaling.items()}
    factors = np.asarray(gguf.tensors[_FREQUENCIES].data, np.float32)
    found = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if not np.allclose(factors, llama3_factors(2 * factors.size, values["rope_theta"], found), rtol=1e-4):
        raise ValueError(
            f"{gguf.path}: {_FREQUENCIES} holds no factors of Llama 3's rope scaling (low 1, high 4, 8192 positions), "
            f"and others are not implemented; use the model's Hugging Face folder"
        )
    return found


def llama3_factors(head_size: int, theta: float, scaling: dict[str, Any]) -> np.ndarray:
    """Returns, for each rotary frequency, the number that Llama 3's scaling divides it by."""
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_size, 2) / head_size)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    return 1 / (smooth + (1 - smooth) / scaling["factor"])
