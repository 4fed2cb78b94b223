"""The model families that are read: a table of what their config.json files say, beyond what all of them say.

To add a family, add an entry to `FAMILIES`; a part that the decoder lacks becomes a setting of `ModelConfig` and a few
lines of `block.py` first. Tensors have the same names in all families, by the parts of a model (`weights.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nft_jax.config import WINDOW_LAYER, ModelConfig
from nft_jax.models.hf.rope_json import FULL, SLIDING

DEFAULT_WINDOW = 4096  # of all families, where the file names none
MAX_POSITIONS = 32768  # of a written folder, which needs the field, though it allocates nothing here
# Fields that change none of the numbers computed here: names, ids (read by `data/tokenizer.py`), dtypes (read by
# `read_dtype`), caches, what initial weights and other people's training are like, and defaults of text generation.
_IRRELEVANT = """
    _attn_implementation _name_or_path architectures attention_dropout attn_implementation bad_words_ids
    begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label initializer_range
    is_decoder is_llama_config label2id length_penalty max_length max_position_embeddings min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tokenizer_class top_k top_p
    torch_dtype torchscript transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version
    use_bfloat16 use_cache
"""
IRRELEVANT = frozenset(_IRRELEVANT.split())
# Fields that must have one of these values if they are there.
REQUIRED = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "is_encoder_decoder": (False,),
    "partial_rotary_factor": (1, 1.0),
    "pruned_heads": ({},),
    "rope_interleaved": (False,),
    "tf_legacy_loss": (False,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False,),
}


def _all_full(values: Mapping[str, Any]) -> list[str]:
    return [FULL] * values["num_hidden_layers"]


def _all_sliding(values: Mapping[str, Any]) -> list[str]:
    return [SLIDING if values.get("sliding_window", DEFAULT_WINDOW) else FULL] * values["num_hidden_layers"]


def _all_sliding_if_used(values: Mapping[str, Any]) -> list[str]:
    return _all_sliding(values) if values.get("use_sliding_window") else _all_full(values)


def _qwen_kinds(values: Mapping[str, Any]) -> Any:
    kinds, first = _all_sliding_if_used(values), values.get("max_window_layers")
    if SLIDING in kinds and values.get("layer_types"):
        return values["layer_types"]
    first = 28 if first is None else first
    return [FULL] * min(first, len(kinds)) + kinds[first:]


def _mixed_kinds(default: int) -> Callable[[Mapping[str, Any]], Any]:
    """Returns the `layer_kinds` of families whose every n-th layer attends to all tokens, with a default n."""

    def kinds(values):
        n = values.get("sliding_window_pattern") or values.get("_sliding_window_pattern") or default
        listed = [SLIDING if (layer + 1) % n else FULL for layer in range(values["num_hidden_layers"])]
        return values.get("layer_types") or listed

    return kinds


@dataclass(frozen=True)
class Family:
    """What distinguishes a family, in the words of its config.json and of `ModelConfig`.

    Attributes:
      model_type: The value of `model_type`.
      architecture: The class of transformers that a written folder names.
      settings: Fields of `ModelConfig` that all models of the family share.
      sizes: Sizes of `ModelConfig` with their keys in config.json, where other families have other keys or lack them.
      switches: Booleans of config.json, absent for false, and the fields of `ModelConfig` that each sets.
      required: Fields that must have one of these values if they are there; a written folder has the first one.
      defaults: Values of fields that a file may leave out.
      renamed: Names that transformers 5 gives to fields, and those in other files.
      layer_kinds: Returns the kind of each layer, `FULL` or `SLIDING`.
      fields: Fields that not all families have, and what a written folder has in each; None for no field.
      window_theta: The field that gives the `rope_theta` of layers with windows, whose positions are never scaled, in
        files of transformers 4; empty where all layers have the same rotary positions.
    """

    model_type: str
    architecture: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"hidden_act": ("silu",)})
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    layer_kinds: Callable[[Mapping[str, Any]], Any] = _all_full
    fields: Mapping[str, Callable[[ModelConfig], Any] | None] = field(default_factory=dict)
    window_theta: str = ""


def _list_kinds(model: ModelConfig) -> list[str]:
    return [SLIDING if kind == WINDOW_LAYER else FULL for kind in model.kinds_of_layers]


_QWEN_WINDOWS = {
    "layer_types": _list_kinds,
    "max_window_layers": lambda model: (model.kinds_of_layers + WINDOW_LAYER).index(WINDOW_LAYER),
    "sliding_window": lambda model: model.window or None,
    "use_sliding_window": lambda model: model.window > 0,
}
_MIXED_WINDOWS = {
    "layer_types": _list_kinds,
    # Such files need a number: one that no sequence exceeds stands for none.
    "sliding_window": lambda model: model.window or MAX_POSITIONS,
}
_OLMO = {
    "settings": {"norms": "after", "qk_norm": "all"},
    "switches": {"attention_bias": ("qkv_bias", "output_bias")},
}
# Other values of `model_type`, and what to do with such a folder.
HINTS = {
    "gemma3": "this Gemma 3 reads images too; nft_jax/models/README.md says how to save its text part, gemma3_text",
}
FAMILIES = (
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        settings={"qkv_bias": True},
        layer_kinds=_qwen_kinds,
        fields=_QWEN_WINDOWS,
    ),
    Family(
        "llama",
        "LlamaForCausalLM",
        switches={"attention_bias": ("qkv_bias", "output_bias"), "mlp_bias": ("mlp_bias",)},
    ),
    Family(
        "mistral",
        "MistralForCausalLM",
        layer_kinds=_all_sliding,
        fields={"sliding_window": lambda model: model.window or None},
    ),
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        settings={"qk_norm": "head"},
        switches={"attention_bias": ("qkv_bias", "output_bias")},
        defaults={"head_dim": 128},
        layer_kinds=_qwen_kinds,
        fields=_QWEN_WINDOWS,
    ),
    Family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        settings={"qk_norm": "head"},
        sizes={
            "experts": "num_experts",
            "experts_per_token": "num_experts_per_tok",
            "mlp_width": "moe_intermediate_size",
        },
        switches={"attention_bias": ("qkv_bias", "output_bias"), "norm_topk_prob": ("experts_normalized",)},
        required={
            "hidden_act": ("silu",),
            # Every layer has experts.
            "decoder_sparse_step": (1,),
            "mlp_only_layers": ([],),
            "output_router_logits": (False,),
        },
        renamed={"num_local_experts": "num_experts"},
        layer_kinds=_all_sliding_if_used,
        # The inner size of layers without experts, and the weight of a loss that balances experts in a first training.
        fields=_QWEN_WINDOWS | {"intermediate_size": lambda model: model.mlp_width, "router_aux_loss_coef": None},
    ),
    Family("olmo2", "Olmo2ForCausalLM", **_OLMO),
    Family(
        "olmo3",
        "Olmo3ForCausalLM",
        **_OLMO,
        layer_kinds=_mixed_kinds(4),
        fields=_MIXED_WINDOWS,
        window_theta="rope_theta",
    ),
    Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        settings={
            "activation": "gelu_tanh",
            "embedding_scaled": True,
            "norm_offset": 1.0,
            "norms": "both",
            "qk_norm": "head",
        },
        switches={"attention_bias": ("qkv_bias", "output_bias")},
        required={
            "hidden_activation": ("gelu_pytorch_tanh",),
            "attn_logit_softcapping": (),
            "final_logit_softcapping": (),
            "use_bidirectional_attention": (False,),
        },
        defaults={
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "rope_local_base_freq": 1e4,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
        },
        layer_kinds=_mixed_kinds(6),
        fields=_MIXED_WINDOWS
        | {
            "query_pre_attn_scalar": lambda model: int(model.query_scalar) or model.head_size,
            "rope_local_base_freq": lambda model: model.window_rope_theta or model.rope_theta,
            "sliding_window_pattern": None,
            "_sliding_window_pattern": None,
        },
        window_theta="rope_local_base_freq",
    ),
)
