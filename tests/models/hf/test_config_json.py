"""The config.json of a Hugging Face model folder: what is read, refused, resolved and written."""

import dataclasses
import json

import numpy as np
import pytest

from helpers.model_folders import random_tensors, write_model, write_tokenizer
from helpers.small_parts import MODEL, VOCABULARY
from nft_jax.config import ModelConfig, RopeScaling
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.models import hf
from nft_jax.models.hf.settings import parse_settings


def test_read_model_settings_of_transformers_4_and_5(tmp_path):
    rope = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "rope_theta": None}
    for changes in ({}, rope, {"rope_scaling": None, "head_dim": 8}, {"rope_theta": 10000}, {"head_dim": None}):
        write_model(tmp_path, random_tensors(), **changes)
        found = hf.read_model_settings(tmp_path)
        assert dataclasses.replace(MODEL, **found) == dataclasses.replace(MODEL, vocab=VOCABULARY)
        assert type(found["rope_theta"]) is type(found["norm_epsilon"]) is float
    write_model(tmp_path, random_tensors(tied=True), head_dim=16, use_sliding_window=True, vocab_size=152)
    found = hf.read_model_settings(tmp_path)
    assert (found["head_size"], found["tied_embedding"], found["vocab"]) == (16, True, 152)


BAD_SETTINGS = {
    "another family": (
        {"model_type": "gpt2"},
        ["unknown model_type 'gpt2'", "known are gemma3_text, llama, mistral, olmo2, olmo3, qwen2"],
    ),
    "unknown fields": (
        {"hiden_act": "gelu", "logit_scale": 0.1, "use_mrope": True, "pruned_heads": {"1": [2]}},
        [
            "hiden_act: 'gelu' is a field that qwen2 models here don't know; did you mean 'hidden_act'?",
            "logit_scale: 0.1 is a field",
            "use_mrope: True is not implemented, only False",
            "pruned_heads: {'1': [2]}",
        ],
    ),
    "missing keys": (
        {"hidden_size": None, "rms_norm_eps": None, "rope_theta": None},
        ["hidden_size: missing", "rms_norm_eps: missing", "rope_theta (or rope_parameters.rope_theta): missing"],
    ),
    "no number": (
        {"num_hidden_layers": "two", "num_attention_heads": 0},
        ["num_hidden_layers: 'two' is not a whole number", "num_attention_heads: 0 is not a whole number above 0"],
    ),
    "rope scaling": (
        {"rope_scaling": {"type": "longrope", "factor": 4.0}, "hidden_act": "gelu"},
        ["rope scaling 'longrope' is not implemented, only 'default', 'linear'", "hidden_act: 'gelu'"],
    ),
    "rope scaling of 5": (
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "mscale": 2.0, "beta_fast": -1}},
        [
            "rope scaling 'yarn' with mscale=2.0 is not implemented",
            "'yarn': factor is missing",
            "original_max_position_embeddings is missing",
            "beta_fast=-1 is not a number above 0",
        ],
    ),
    "two rope scalings": (
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"type": "linear", "factor": 2.0}},
        ["rope_scaling.factor: 4.0 contradicts rope_parameters.factor: 2.0"],
    ),
    "layers": (
        {"use_sliding_window": True, "layer_types": ["full_attention", "chunked_attention"]},
        ["layer_types: ['full_attention', 'chunked_attention'] is not a list of 'full_attention' and 'sliding"],
    ),
    "quantized": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        ["quantization_config: weights quantized by 'gptq' can't be read; use the model that isn't quantized"],
    ),
    "quantized by an unnamed method": (
        {"quantization_config": {"bits": 4}},
        ["quantization_config: weights quantized"],
    ),
    "scaled positions in layers with windows": (
        {"model_type": "olmo3", "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 4.0}}},
        ["rope_parameters.sliding_attention: linear is not implemented, only positions as they are"],
    ),
    "a theta that transformers 4 and 5 read differently": (
        {"model_type": "olmo3", "rope_theta": 10000.0},
        ["rope_theta: 10000.0 counts for layers with windows in transformers 4, and 500000 does in transformers 5"],
    ),
    "positions of no kind of layers": (
        {"model_type": "olmo3", "rope_parameters": {"rope_type": "default"}, "sliding_window": 0},
        ["{'rope_type': 'default'} has other keys than 'full_attention' and 'sliding_attention'", "sliding_window: 0"],
    ),
    "parts of another Gemma": (
        {
            **{"model_type": "gemma3_text", "hidden_activation": "gelu", "attn_logit_softcapping": 50.0},
            **{"query_pre_attn_scalar": 0, "rope_local_base_freq": -1, "sliding_window_pattern": 0},
        },
        [
            "hidden_activation: 'gelu' is not implemented, only 'gelu_pytorch_tanh'",
            "attn_logit_softcapping: 50.0 is not implemented, only null",
            "query_pre_attn_scalar: 0 is not a whole number above 0",
            "sliding_window_pattern: 0 is not a whole number above 0",
            "rope_local_base_freq",
            "hidden_act: 'silu' is a field that gemma3_text models here don't know",
        ],
    ),
    "layers without experts": (
        {
            **{"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 5, "num_local_experts": 8},
            **{"mlp_only_layers": [0], "decoder_sparse_step": 2, "norm_topk_prob": "yes"},
        },
        [
            "moe_intermediate_size: missing",
            "norm_topk_prob: 'yes' is neither true nor false",
            "mlp_only_layers: [0] is not implemented, only []",
            "decoder_sparse_step: 2 is not implemented, only 1",
            "num_local_experts: 8 is a field that qwen3_moe models here don't know; did you mean 'num_experts'?",
        ],
    ),
    "more experts than there are": (
        {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 5, "moe_intermediate_size": 8},
        ["num_experts_per_tok: 5 is above num_experts: 4"],
    ),
    "images": ({"model_type": "gemma3"}, ["this Gemma 3 reads images too; nft_jax/models/README.md says how"]),
    "odd heads": ({"num_attention_heads": 5}, ["num_attention_heads: 5 does not divide hidden_size: 32"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_read_model_settings_names_all_unusable_settings_at_once(tmp_path, name):
    changes, words = BAD_SETTINGS[name]
    write_model(tmp_path, random_tensors(), **changes)
    with pytest.raises(ValueError) as raised:
        hf.read_model_settings(tmp_path)
    assert str(tmp_path / "config.json") in str(raised.value)
    assert all(word in str(raised.value) for word in words), raised.value


def test_read_model_settings_without_folder_file_or_json(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder.*hf download OWNER/NAME --local-dir"):
        hf.read_model_settings(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no config.json in it"):
        hf.read_model_settings(tmp_path)
    for content, words in (
        ('{"model_type": ', "is no JSON: .*download it again"),
        ("[]", "holds a JSON list, not an object"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            hf.read_model_settings(tmp_path)


def test_resolve_model_takes_the_shape_and_rounds_the_vocabulary_up(tmp_path):
    write_model(tmp_path, random_tensors(), rope_theta=1e6)
    model = hf.resolve_model(ModelConfig(path="p", dtype="bfloat16"), tmp_path)
    assert model == dataclasses.replace(
        MODEL, path="p", dtype="bfloat16", vocab=128, vocab_multiple=128, remat="full", rope_theta=1e6
    )
    # Resolving again, or with the folder's values given, changes nothing.
    assert hf.resolve_model(model, tmp_path) == model
    assert hf.resolve_model(dataclasses.replace(model, vocab=VOCABULARY), tmp_path) == model


def test_read_token_limit_is_the_positions_that_scaling_extends(tmp_path):
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    for changes, expected in (
        ({}, None),
        ({"max_position_embeddings": 16}, 16),
        ({"max_position_embeddings": 16, "rope_scaling": yarn}, 64),
        ({"max_position_embeddings": 64} | WINDOWS, 64),
    ):
        write_model(tmp_path, random_tensors(), **changes)
        assert hf.read_token_limit(tmp_path) == expected


NO_QWEN = {"max_window_layers": None, "use_sliding_window": None, "hidden_act": None, "sliding_window": 32}
WINDOWS = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 32}


@pytest.mark.parametrize(
    ("changes", "kinds", "window"),
    [
        (WINDOWS, "fw", 32),
        (WINDOWS | {"max_position_embeddings": 33}, "fw", 32),
        (WINDOWS | {"max_position_embeddings": 32}, "f", 0),
        (WINDOWS | {"max_window_layers": 0}, "w", 32),
        (WINDOWS | {"max_window_layers": 2}, "f", 0),
        (WINDOWS | {"max_window_layers": None}, "f", 0),  # 28
        (WINDOWS | {"use_sliding_window": False}, "f", 0),
        (WINDOWS | {"sliding_window": 0}, "f", 0),
        (WINDOWS | {"layer_types": ["sliding_attention", "full_attention"]}, "wf", 32),
        (NO_QWEN | {"model_type": "mistral"}, "w", 32),
        (NO_QWEN | {"model_type": "mistral", "max_position_embeddings": 32}, "f", 0),
        (NO_QWEN | {"model_type": "llama", "sliding_window": None}, "f", 0),
    ],
)
def test_read_model_settings_of_windows_in_families_of_one_rope(tmp_path, changes, kinds, window):
    write_model(tmp_path, random_tensors(), **changes)
    found = hf.read_model_settings(tmp_path)
    assert (found["layer_kinds"], found["window"], found["window_rope_theta"]) == (kinds, window, 0)


OLMO3 = NO_QWEN | {"model_type": "olmo3", "rope_theta": 500000}
GEMMA3 = NO_QWEN | {"model_type": "gemma3_text", "rope_theta": None, "num_hidden_layers": 7}
FULL, SLIDING = "full_attention", "sliding_attention"
ROPES = {FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5}, SLIDING: {"rope_theta": 1e3}}


@pytest.mark.parametrize(
    ("changes", "kinds", "theta", "window_theta", "window"),
    [
        (OLMO3, "w", 5e5, 0, 32),
        (OLMO3 | {"rope_scaling": {"type": "linear", "factor": 8.0}}, "w", 5e5, 5e5, 32),
        (OLMO3 | {"rope_parameters": ROPES, "num_hidden_layers": 6}, "wwwf", 1e5, 1e3, 32),
        (OLMO3 | {"rope_parameters": ROPES, "layer_types": [FULL, FULL]}, "f", 1e5, 0, 0),
        (OLMO3 | {"rope_parameters": ROPES, "layer_types": [FULL, SLIDING]}, "fw", 1e5, 1e3, 32),
        (GEMMA3 | {"sliding_window": None}, "wwwwwf", 1e6, 1e4, 4096),
        (GEMMA3 | {"sliding_window_pattern": 3, "rope_local_base_freq": 5e3, "rope_theta": 1e5}, "wwf", 1e5, 5e3, 32),
        (GEMMA3 | {"sliding_window_pattern": 1}, "f", 1e6, 0, 0),
        (GEMMA3 | {"max_position_embeddings": 32}, "wwwwwf", 1e6, 1e4, 0),
    ],
)
def test_read_model_settings_of_layers_with_windows(tmp_path, changes, kinds, theta, window_theta, window):
    """The kinds matter where windows are shorter than the longest sequence, or rotary positions differ."""
    write_model(tmp_path, random_tensors(), **changes)
    found = hf.read_model_settings(tmp_path)
    assert (found["layer_kinds"], found["rope_theta"], found["window_rope_theta"]) == (kinds, theta, window_theta)
    assert found["rope_scaling"].kind == ("linear" if {"rope_parameters", "rope_scaling"} & changes.keys() else "none")
    assert found["window"] == window


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts"])
def test_read_model_settings_knows_both_names_of_the_number_of_experts(tmp_path, name):
    fields = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, name: 6, "norm_topk_prob": True}
    write_model(tmp_path, random_tensors(), model_type="qwen3_moe", **fields)
    found = hf.read_model_settings(tmp_path)
    names = ("experts", "experts_per_token", "experts_normalized", "mlp_width")
    assert [found[name] for name in names] == [6, 2, True, 24]


def test_resolve_model_names_contradictions_with_both_values(tmp_path):
    write_model(tmp_path, random_tensors())
    with pytest.raises(ValueError) as raised:
        hf.resolve_model(ModelConfig(layers=7, vocab=100, qkv_bias=False), tmp_path)
    for words in ("config.model.layers=7, but", "has layers=2", "vocab=100", "has vocab=128", "qkv_bias=False"):
        assert words in str(raised.value)
    assert "config.model.width" not in str(raised.value)


def test_write_settings_copies_a_model_folder_byte_for_byte(tmp_path):
    source = write_tokenizer(write_model(tmp_path / "source", random_tensors()))
    (source / "generation_config.json").write_text('{"eos_token_id":[1,2],  "temperature":0.7}')
    (source / "notes.txt").write_text("not of the model")
    hf.write_settings(tmp_path / "out", MODEL, load_tokenizer(source), source)
    names = ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert all((tmp_path / "out" / name).read_bytes() == (source / name).read_bytes() for name in names)


LLAMA = dataclasses.replace(MODEL, qkv_bias=False)
YARN = RopeScaling("yarn", 4.0, 64)
OLMO = dataclasses.replace(LLAMA, norms="after", qk_norm="all")
GEMMA = dataclasses.replace(
    LLAMA,
    norms="both",
    norm_offset=1.0,
    qk_norm="head",
    activation="gelu_tanh",
    embedding_scaled=True,
    layer_kinds="fw",
    window_rope_theta=500.0,
)
WRITTEN = [
    (MODEL, "qwen2"),
    (dataclasses.replace(MODEL, tied_embedding=True, head_size=16), "qwen2"),
    (dataclasses.replace(MODEL, rope_scaling=RopeScaling("yarn", 4.0, 64, beta_fast=16.0, truncate=False)), "qwen2"),
    (dataclasses.replace(MODEL, rope_scaling=RopeScaling("yarn", 4.0, 64, attention_factor=1.5)), "qwen2"),
    (LLAMA, "llama"),
    (dataclasses.replace(LLAMA, mlp_bias=True, rope_scaling=RopeScaling("llama3", 8.0, 64)), "llama"),
    (dataclasses.replace(LLAMA, qk_norm="head"), "qwen3"),
    (dataclasses.replace(LLAMA, qk_norm="head", experts=4, experts_per_token=1), "qwen3_moe"),
    (dataclasses.replace(LLAMA, qk_norm="head", experts=4, experts_per_token=4, experts_normalized=True), "qwen3_moe"),
    (dataclasses.replace(MODEL, output_bias=True, rope_scaling=RopeScaling("linear", 8.0)), "llama"),
    (OLMO, "olmo2"),
    (dataclasses.replace(OLMO, output_bias=True, qkv_bias=True, rope_scaling=YARN), "olmo2"),
    (dataclasses.replace(OLMO, layers=5, layer_kinds="wwwf", window_rope_theta=500.0), "olmo3"),
    (dataclasses.replace(OLMO, layer_kinds="w", window_rope_theta=10000.0, rope_scaling=YARN), "olmo3"),
    (GEMMA, "gemma3_text"),
    (dataclasses.replace(GEMMA, query_scalar=12.0, tied_embedding=True, rope_scaling=YARN), "gemma3_text"),
    (dataclasses.replace(GEMMA, layer_kinds="f", window_rope_theta=0.0, head_size=24), "gemma3_text"),
    (dataclasses.replace(GEMMA, layer_kinds="fw", window_rope_theta=0.0, window=5), "gemma3_text"),
    (dataclasses.replace(OLMO, layers=5, layer_kinds="wwf", window_rope_theta=500.0, window=512), "olmo3"),
    (dataclasses.replace(MODEL, layers=5, layer_kinds="fffww", window=512), "qwen2"),
    (dataclasses.replace(MODEL, layers=5, layer_kinds="wf", window=512), "qwen2"),
    (dataclasses.replace(LLAMA, layer_kinds="w", window=512), "mistral"),
    (dataclasses.replace(LLAMA, layer_kinds="w", window=512, qk_norm="head"), "qwen3"),
]


@pytest.mark.parametrize(("model", "family"), WRITTEN)
def test_write_settings_of_a_config_reads_back_as_that_config(tmp_path, model, family):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    hf.write_settings(tmp_path / "out", model, tokenizer)
    # The tokenizer's size, not the model's padded rows.
    expected = dataclasses.replace(model, vocab=VOCABULARY)
    assert dataclasses.replace(model, **hf.read_model_settings(tmp_path / "out")) == expected
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == family
    assert tokenizer.vocab_size == VOCABULARY
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {"eos_token_id": [1, 2]}
    assert hf.read_dtype(tmp_path / "out") == "float32"
    assert load_tokenizer(tmp_path / "out").eos_ids == tokenizer.eos_ids == (1, 2)


def test_write_settings_of_a_model_of_no_family_is_readable_by_nothing(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    hf.write_settings(tmp_path / "out", dataclasses.replace(LLAMA, output_bias=True), tokenizer)
    with pytest.raises(ValueError, match="unknown model_type 'nft_jax': known are"):
        hf.read_model_settings(tmp_path / "out")


def test_parse_settings_ignores_null_fields_and_reads_every_other(tmp_path):
    """Any field of a name of its own is refused, by name; without a value it is as if it was not there."""
    write_model(tmp_path, random_tensors())
    values = json.loads((tmp_path / "config.json").read_text())
    expected = parse_settings(values, tmp_path)
    random = np.random.default_rng(seed := 0)
    for _ in range(20):
        name = "".join(random.choice(list("abcdefgh_"), 12))
        assert parse_settings(values | {name: None}, tmp_path) == expected
        with pytest.raises(ValueError, match=f"{name}: .* is a field that qwen2 models here don't know"):
            parse_settings(values | {name: random.choice([0, 1.5])}, tmp_path), f"seed {seed}"


def test_read_dtype_and_write_dtype(tmp_path):
    for changes, dtype in (
        ({"dtype": "float16"}, "float16"),
        ({"dtype": None, "torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": None}, "float32"),
    ):
        write_model(tmp_path, {}, **changes)
        before = (tmp_path / "config.json").read_bytes()
        assert hf.read_dtype(tmp_path) == dtype
        hf.write_dtype(tmp_path, dtype)
        assert (tmp_path / "config.json").read_bytes() == before
        hf.write_dtype(tmp_path, "bfloat16")
        assert hf.read_dtype(tmp_path) == "bfloat16"
    write_model(tmp_path, {}, dtype="float8_e4m3fn")
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        hf.read_dtype(tmp_path)


@pytest.mark.parametrize("dtype", ["torch.bfloat16", "bfloat16"])
def test_read_dtype_takes_the_name_of_torch_and_write_dtype_leaves_the_usual_one(tmp_path, dtype):
    """transformers doesn't load a folder whose dtype is "torch.bfloat16"."""
    folder = write_model(tmp_path, random_tensors(), dtype=None, torch_dtype=dtype)
    assert hf.read_dtype(folder) == "bfloat16"
    before = (folder / "config.json").read_bytes()
    hf.write_dtype(folder, "bfloat16")
    assert ((folder / "config.json").read_bytes() == before) == (dtype == "bfloat16")
    assert "torch.bfloat16" not in (folder / "config.json").read_text()
    assert hf.read_dtype(folder) == "bfloat16"


@pytest.mark.parametrize(
    "file, fault",
    [
        ("adapter_config.json", "holds a LoRA adapter beside a model; merge it"),
        ("quantize_config.json", "holds quantized weights, which can't be read"),
        ("quant_config.json", "holds quantized weights, which can't be read"),
    ],
)
def test_read_model_settings_refuses_what_makes_another_model_of_the_weights(tmp_path, file, fault):
    folder = write_model(tmp_path, random_tensors())
    (folder / file).write_text("{}")
    with pytest.raises(ValueError, match=f"{fault}.*{file}"):
        hf.read_model_settings(folder)


def test_read_model_settings_of_a_file_names_its_folder(tmp_path):
    folder = write_model(tmp_path, random_tensors())
    with pytest.raises(ValueError, match=f"neither a model folder nor a .gguf file; try its folder {folder}"):
        hf.read_model_settings(folder / "model.safetensors")


def test_read_model_settings_says_what_a_folder_holds_instead(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=f"no config.json in it.*config.model.path={tmp_path}/model.gguf"):
        hf.read_model_settings(tmp_path)
