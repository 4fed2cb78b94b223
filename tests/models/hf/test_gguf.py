"""GGUF files as Hugging Face models: settings, names, order of rows, and weights."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.gguf_models import (
    HEADS,
    KV_HEADS,
    SETTINGS,
    draw_tensors,
    permute,
    tokenizer_values,
    train_tokenizer,
    write_gguf,
)
from helpers.model_folders import abstract_weights
from helpers.small_parts import one_device
from nft_jax.config import ModelConfig
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.models import hf
from nft_jax.models.hf.gguf import GgufTensors, llama3_factors, read_config, read_headers, rename

gguf = pytest.importorskip("gguf")
ARCHITECTURES = ("llama", "qwen2", "qwen3")
CONFIG = ModelConfig(vocab_multiple=8, remat="none")


def refusal(path, **options):
    """The message of `read_config`, which must refuse the file by name."""
    architecture = options.get("architecture", "qwen2")
    write_gguf(path, draw_tensors(architecture, 40), **options)
    with pytest.raises(ValueError) as raised:
        read_config(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rename_gives_the_names_of_the_converter(architecture):
    """The package's own table says what the converter calls each name."""
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, 2)
    for name in draw_tensors(architecture, 8):
        assert rename(names.get_name(name, (".weight", ".bias"))) == name


def test_rename_keeps_unknown_names():
    for name in ("blk.0.ffn_gate_inp.weight", "blk.x.attn_q.weight", "rope_freqs.weight", "a", ""):
        assert rename(name) == name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_read_config_gives_the_values_of_a_config_json(tmp_path, architecture, tied):
    path = write_gguf(tmp_path / "model.gguf", draw_tensors(architecture, 40, tied=tied), architecture=architecture)
    values = read_config(path)
    assert values["model_type"] == architecture
    assert values["rms_norm_eps"] == 1e-5
    assert values["tie_word_embeddings"] == tied
    assert (values["vocab_size"], values["num_hidden_layers"], values["hidden_size"]) == (40, 2, 256)
    assert values.get("head_dim") == (64 if architecture == "qwen3" else None)
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_GgufTensors_reads_every_piece_of_every_tensor(tmp_path, architecture):
    tensors = draw_tensors(architecture, 40)
    path = write_gguf(tmp_path / "model.gguf", tensors, architecture=architecture)
    found, random = GgufTensors(path), np.random.default_rng(0)
    assert {name: header.shape for name, header in read_headers(path).items()} == {
        n: x.shape for n, x in tensors.items()
    }
    for name, expected in tensors.items():
        for _ in range(4):
            index = tuple(slice(*sorted(random.integers(0, size + 1, 2))) for size in expected.shape)
            np.testing.assert_array_equal(found.get_slice(name)[index], expected[index], err_msg=name)


def test_GgufTensors_puts_the_biases_of_a_llama_back_in_order_too(tmp_path):
    tensors = draw_tensors("llama", 40)
    names = [f"model.layers.{i}.self_attn.{part}_proj.bias" for i in range(2) for part in "qkvo"]
    tensors |= {name: np.arange(len(tensors[name.replace("bias", "weight")]), dtype=np.float32) for name in names}
    path = write_gguf(tmp_path / "model.gguf", tensors, architecture="llama")
    assert read_config(path)["attention_bias"]
    for name in names:
        np.testing.assert_array_equal(GgufTensors(path).get_slice(name)[(slice(None),)], tensors[name], err_msg=name)


@pytest.mark.parametrize("heads, size", [(HEADS, 32), (KV_HEADS, 32), (1, 2), (3, 64)])
def test_permute_is_that_of_the_converter(heads, size):
    """llama.cpp's formula: the halves of a head become its second axis, which moves inside."""
    rows = np.arange(heads * size * 3).reshape(heads * size, 3)
    theirs = rows.reshape(heads, 2, size // 2, 3).swapaxes(1, 2).reshape(rows.shape)
    np.testing.assert_array_equal(permute(rows, heads), theirs)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q6_K"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_GgufTensors_dequantizes_as_the_package_does(tmp_path, architecture, kind):
    path = write_gguf(tmp_path / "model.gguf", draw_tensors(architecture, 40), architecture=architecture, kind=kind)
    stored = {rename(tensor.name): tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, heads in {"mlp.down_proj": 0, "self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.items():
        name = f"model.layers.1.{name}.weight"
        tensor = stored[name]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        found = GgufTensors(path).get_slice(name)[:, 5:77]
        if architecture == "llama" and heads:
            found = permute(found, heads)
        np.testing.assert_array_equal(found, expected[:, 5:77])
    assert read_config(path)["dtype"] == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")


@pytest.mark.parametrize("tied", [False, True])
def test_load_weights_of_a_gguf_file_and_of_a_folder_are_equal(tmp_path, tied):
    """The folder is written from the file's own settings, so this is the way of a run, of its resume and its export."""
    tokenizer = train_tokenizer()
    tensors = draw_tensors("qwen2", tokenizer.get_vocab_size(), tied=tied)
    path, folder = tmp_path / "model.gguf", tmp_path / "folder"
    write_gguf(path, tensors, values=tokenizer_values(tokenizer, "qwen2"))
    hf.write_settings(folder, CONFIG, load_tokenizer(path), path)
    save_file(tensors, folder / "model.safetensors")
    model = hf.resolve_model(CONFIG, path)
    assert hf.resolve_model(CONFIG, folder) == model
    assert hf.read_dtype(folder) == hf.read_dtype(path) == "float32"
    assert load_tokenizer(folder).eos_ids == load_tokenizer(path).eos_ids
    shapes = abstract_weights(model, one_device())
    ours, theirs = hf.load_weights(path, shapes), hf.load_weights(folder, shapes)
    assert ours.keys() == theirs.keys()
    for (where, a), b in zip(_leaves(ours), _leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b[1], err_msg=where)


def _leaves(weights):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(weights)]


def test_check_weights_names_unknown_and_missing_tensors(tmp_path):
    tensors = draw_tensors("qwen2", 40)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["blk.0.ffn_gate_inp.weight"] = np.zeros((8, 256), np.float32)
    path = write_gguf(tmp_path / "model.gguf", tensors)
    with pytest.raises(ValueError) as raised:
        hf.check_weights(path, abstract_weights(hf.resolve_model(CONFIG, path), one_device()))
    assert "missing: model.layers.1.mlp.up_proj.weight" in str(raised.value)
    assert "not of this model: blk.0.ffn_gate_inp.weight" in str(raised.value)


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"architecture": "gemma3"}, "unknown GGUF architecture 'gemma3': known are llama, qwen2, qwen3"),
        ({"without": ["qwen2.block_count"]}, "qwen2.block_count: missing"),
        ({"without": ["qwen2.attention.head_count"]}, "qwen2.attention.head_count: missing"),
        ({"values": {"qwen2.expert_count": 8}}, "qwen2.expert_count: 8 is not read"),
        ({"values": {"qwen2.attention.sliding_window": 4096}}, "qwen2.attention.sliding_window: 4096 is not read"),
        (
            {"values": {"qwen2.rope.dimension_count": 16, "qwen2.attention.key_length": 32}},
            "sizes of a head that differ",
        ),
        ({"values": {"qwen2.attention.head_count": [8, 4]}}, "qwen2.attention.head_count: [8, 4] is not one number"),
    ],
)
def test_read_config_refuses_what_it_cannot_read(tmp_path, options, fault):
    assert fault in refusal(tmp_path / "model.gguf", **options)


@pytest.mark.parametrize("key", [*SETTINGS, "attention.key_length", "rope.scaling.type", "rope.scaling.factor"])
def test_read_model_settings_reads_any_value_of_a_gguf_file_or_refuses_it(tmp_path, key):
    path = tmp_path / "model.gguf"
    for value in (0, -1, 2**31 - 1, float("nan"), float("inf"), 1e-30, True, "", "x", [1, 2], ["a"]):
        tensors = {"model.embed_tokens.weight": np.zeros((8, 32), np.float32)}
        write_gguf(path, tensors, values={f"qwen2.{key}": value, "general.name": str(value)})
        try:
            hf.read_model_settings(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_read_config_takes_settings_that_change_nothing(tmp_path):
    values = {"qwen2.expert_count": 0, "qwen2.use_parallel_residual": False, "qwen2.rope.scaling.type": "none"}
    path = write_gguf(tmp_path / "model.gguf", draw_tensors("qwen2", 40), values=values)
    assert read_config(path)["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}


def test_read_config_translates_yarn(tmp_path):
    values = {"type": "yarn", "factor": 4.0, "original_context_length": 32768}
    values = {f"qwen2.rope.scaling.{key}": value for key, value in values.items()}
    path = write_gguf(tmp_path / "model.gguf", draw_tensors("qwen2", 40), values=values)
    assert read_config(path)["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }


SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_read_config_finds_the_scaling_of_llama3_in_its_factors(tmp_path, factor):
    """llama.cpp keeps only the factors of the frequencies, which transformers' reader leaves out in silence."""
    scaling = SCALING | {"factor": factor}
    factors = llama3_factors(32, 5e5, scaling).astype(np.float32)
    tensors = draw_tensors("llama", 40) | {"rope_freqs.weight": factors}
    values = {"llama.rope.freq_base": 5e5}
    path = write_gguf(tmp_path / "model.gguf", tensors, architecture="llama", values=values)
    assert read_config(path)["rope_parameters"] == scaling | {"rope_theta": 5e5}
    assert "rope_freqs.weight" not in read_headers(path)
    tensors["rope_freqs.weight"] = factors[::-1].copy()
    write_gguf(path, tensors, architecture="llama", values=values | {"general.name": "other"})
    with pytest.raises(ValueError, match="rope_freqs.weight holds no factors of Llama 3's rope scaling"):
        read_config(path)
