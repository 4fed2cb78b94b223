"""Small GGUF files, written by the `gguf` package with the names, keys and orders of llama.cpp's converter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from nft_jax.models.hf.gguf import rename

# Sizes of which blocks of 32 numbers are a divisor, as most quantized types need; Q6_K needs 256.
LAYERS, WIDTH, HEADS, KV_HEADS, MLP = 2, 256, 8, 2, 512
SETTINGS = {
    "block_count": LAYERS,
    "context_length": 512,
    "embedding_length": WIDTH,
    "feed_forward_length": MLP,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
}
TEXTS = [
    "Tom has 12 apples and 345 pears.  He'll eat 6\n\n of them, won't he?",
    "x = 7890 - (12 * 34) / 5;\r\n\tfor i in range(100): print('naïve café', i)",
    "   漢字とかな, Ünïcödé ½ × 2² = 1\n   \n Tom's 1st 22nd 333rd 4444th",
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def head_size(architecture: str) -> int:
    """Returns the size of a head, which in Qwen3 is not the width by the heads."""
    return WIDTH // HEADS * (2 if architecture == "qwen3" else 1)


def draw_tensors(architecture: str, vocabulary: int, *, tied: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random tensors under Hugging Face's names."""
    size = head_size(architecture)
    layer = {
        "attn_norm.weight": (WIDTH,),
        "attn_q.weight": (HEADS * size, WIDTH),
        "attn_k.weight": (KV_HEADS * size, WIDTH),
        "attn_v.weight": (KV_HEADS * size, WIDTH),
        "attn_output.weight": (WIDTH, HEADS * size),
        "ffn_norm.weight": (WIDTH,),
        "ffn_gate.weight": (MLP, WIDTH),
        "ffn_up.weight": (MLP, WIDTH),
        "ffn_down.weight": (WIDTH, MLP),
    }
    if architecture == "qwen2":
        layer |= {f"attn_{name}.bias": layer[f"attn_{name}.weight"][:1] for name in "qkv"}
    if architecture == "qwen3":
        layer |= {"attn_q_norm.weight": (size,), "attn_k_norm.weight": (size,)}
    shapes = {"token_embd.weight": (vocabulary, WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    shapes |= {} if tied else {"output.weight": (vocabulary, WIDTH)}
    random = np.random.default_rng(seed)
    return {
        rename(name): (("norm" in name) + random.normal(0, 0.1, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def original_names(tensors: dict[str, np.ndarray]) -> dict[str, str]:
    """Returns the GGUF name of each tensor."""
    stems = ("token_embd", "output_norm", "output")
    parts = ("norm", "q", "k", "v", "q_norm", "k_norm", "output")
    stems += tuple(f"blk.{i}.attn_{part}" for i in range(LAYERS) for part in parts)
    stems += tuple(f"blk.{i}.ffn_{part}" for i in range(LAYERS) for part in ("norm", "gate", "up", "down"))
    known = {rename(f"{stem}.{kind}"): f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")}
    return {name: known[name] for name in tensors}


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Orders the rows of a query or key as llama.cpp does: i and i + D/2 of a head stand beside each other."""
    half = len(rows) // heads // 2
    order = [head * 2 * half + part * half + i for head in range(heads) for i in range(half) for part in (0, 1)]
    return rows[order]


def train_tokenizer(size: int = 320) -> tokenizers.Tokenizer:
    """Returns a byte-level BPE tokenizer with two control tokens and one user-defined, in this order, at the end."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 3, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>"])
    return tokenizer


def tokenizer_values(tokenizer: tokenizers.Tokenizer, pre: str, unused: int = 0) -> dict[str, Any]:
    """Returns the metadata of a trained tokenizer, with `unused` more tokens, as converters fill up a table."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.get)
    kinds = [1] * (len(tokens) - 3) + [3, 3, 4] + [5] * unused
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    values = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens + [f"[PAD{len(tokens) + i}]" for i in range(unused)],
        "token_type": kinds,
        "merges": [each if isinstance(each, str) else " ".join(each) for each in merges],
        "bos_token_id": vocabulary["<|im_start|>"],
        "eos_token_id": vocabulary["<|im_end|>"],
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()} | {"tokenizer.chat_template": TEMPLATE}


def write_gguf(
    path: Path,
    tensors: dict[str, np.ndarray],
    *,
    architecture: str = "qwen2",
    kind: str = "F32",
    values: dict[str, Any] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Writes a file with tensors under Hugging Face's names, or their own, whose matrices are of a type of GGUF.

    Args:
      values: Further metadata, or other values of `SETTINGS`, by full key.
      without: Keys that are left out.
    """
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    written = {f"{architecture}.{key}": value for key, value in SETTINGS.items()} | (values or {})
    if architecture == "qwen3":
        written |= {f"qwen3.attention.{name}_length": head_size(architecture) for name in ("key", "value")}
    for key, value in written.items():
        if key not in without:
            sub = gguf.GGUFValueType.get_type(value[0]) if isinstance(value, list) else None
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value), sub)
    names = original_names({name: x for name, x in tensors.items() if name.startswith(("model.", "lm_head"))})
    for name, x in tensors.items():
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            x = permute(x, HEADS if "q_proj" in name else KV_HEADS)
        data, stored = _quantize(x, kind if x.ndim == 2 else "F32")
        writer.add_tensor(names.get(name, name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _quantize(x: np.ndarray, kind: str) -> tuple[np.ndarray, Any]:
    import gguf

    stored = gguf.GGMLQuantizationType[kind]
    if kind == "F32":
        return x, stored
    if kind == "F16":
        return x.astype(np.float16), stored
    try:
        return gguf.quantize(x, stored), stored
    except NotImplementedError:
        # Blocks of random numbers with a small scale, which is last in each block of Q6_K.
        block, size = gguf.GGML_QUANT_SIZES[stored]
        random = np.random.default_rng(x.size)
        blocks = random.integers(0, 256, (len(x), x.shape[1] // block, size), dtype=np.uint8)
        blocks[..., -2:] = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
        return blocks.reshape(len(x), -1), stored
