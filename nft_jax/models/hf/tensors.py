"""The names of a model's tensors in Hugging Face files, and their places in our weights.

A new weight of a layer gets its name in `_LAYER`; all families have the same names, but where attention's output has a
norm and where layers have experts.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from nft_jax.models.experts import EXPERT_WEIGHTS

TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
# In the order of transformers, which decides which tensors share one of several files.
_LAYER = {
    "query": "self_attn.q_proj.weight",
    "query_bias": "self_attn.q_proj.bias",
    "key": "self_attn.k_proj.weight",
    "key_bias": "self_attn.k_proj.bias",
    "value": "self_attn.v_proj.weight",
    "value_bias": "self_attn.v_proj.bias",
    "output": "self_attn.o_proj.weight",
    "output_bias": "self_attn.o_proj.bias",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
    "router": "mlp.gate.weight",
    "gate": "mlp.gate_proj.weight",
    "gate_bias": "mlp.gate_proj.bias",
    "up": "mlp.up_proj.weight",
    "up_bias": "mlp.up_proj.bias",
    "down": "mlp.down_proj.weight",
    "down_bias": "mlp.down_proj.bias",
    "attention_norm": "input_layernorm.weight",
    "attention_out_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "mlp_out_norm": "post_feedforward_layernorm.weight",
}
_WITHOUT_OUT_NORMS = {"mlp_norm": _LAYER["attention_out_norm"]}  # where no norm follows attention
TABLES = ("embedding", "head")


class Place(NamedTuple):
    """The place of a tensor of the files in the model's weights.

    Attributes:
      tensor: Its name in the files.
      weight: The name of the model's weight.
      index: Its layer, and its expert if it has one; empty for a weight outside the layers.
    """

    tensor: str
    weight: str
    index: tuple[int, ...] = ()


def find_places(weights: Any) -> Iterator[Place]:
    """Yields the place of each tensor, in the order of transformers."""
    blocks = weights["blocks"]
    names = _LAYER if "attention_out_norm" in blocks else _LAYER | _WITHOUT_OUT_NORMS
    yield Place(TOP["embedding"], "embedding")
    for layer in range(blocks["query"].shape[0]):
        prefix = f"model.layers.{layer}"
        for name in names:
            if name == "gate" and "router" in blocks:
                yield from _places_of_experts(prefix, layer, blocks["gate"].shape[1])
            elif name in blocks and not ("router" in blocks and name in EXPERT_WEIGHTS):
                yield Place(f"{prefix}.{names[name]}", name, (layer,))
    yield from (Place(TOP[name], name) for name in ("norm", "head") if name in weights)


def _places_of_experts(prefix: str, layer: int, experts: int) -> Iterator[Place]:
    for expert in range(experts):
        for name in EXPERT_WEIGHTS:
            tensor = _LAYER[name].removeprefix("mlp.")
            yield Place(f"{prefix}.mlp.experts.{expert}.{tensor}", name, (layer, expert))


def layer_tensor(layer: int, name: str) -> str:
    """Returns the name in the files of a layer's matrix."""
    return f"model.layers.{layer}.{_LAYER[name]}"
