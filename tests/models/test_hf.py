"""Hugging Face model folders: in and out bit for bit, wherever the weights lie; broken ones are refused in words."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.model_folders import (
    SETTINGS,
    placed,
    random_tensors,
    stored_tensors,
    write_model,
    write_tokenizer,
)
from helpers.small_parts import MODEL, ROWS, VOCABULARY, eight_devices, lively_weights, one_device
from nft_jax.config import ModelConfig
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.models import hf
from nft_jax.models.hf import weights as hf_weights

# What a user would write: nothing but how far the vocabulary is rounded up.
GIVEN = ModelConfig(vocab_multiple=8, remat="none")
MESHES = {"one device": one_device, "eight devices": eight_devices}


def loaded(folder, mesh):
    return hf.load_weights(folder, placed(hf.resolve_model(GIVEN, folder), mesh))


def expected_weights(tensors):
    """Our tree of a folder's tensors: matrices transposed, layers stacked, tables padded."""

    def padded(name):
        return np.pad(tensors[name].astype(np.float32), ((0, ROWS - VOCABULARY), (0, 0)))

    def stacked(name):
        return np.stack([tensors[f"model.layers.{i}.{name}"].astype(np.float32).T for i in range(2)])

    blocks = {
        "attention_norm": "input_layernorm.weight",
        "query": "self_attn.q_proj.weight",
        "key": "self_attn.k_proj.weight",
        "value": "self_attn.v_proj.weight",
        "query_bias": "self_attn.q_proj.bias",
        "key_bias": "self_attn.k_proj.bias",
        "value_bias": "self_attn.v_proj.bias",
        "output": "self_attn.o_proj.weight",
        "mlp_norm": "post_attention_layernorm.weight",
        "gate": "mlp.gate_proj.weight",
        "up": "mlp.up_proj.weight",
        "down": "mlp.down_proj.weight",
    }
    head = {"head": padded("lm_head.weight")} if "lm_head.weight" in tensors else {}
    return head | {
        "embedding": padded("model.embed_tokens.weight"),
        "norm": tensors["model.norm.weight"].astype(np.float32),
        "blocks": {ours: stacked(theirs) for ours, theirs in blocks.items()},
    }


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_weights_come_in_transposed_stacked_padded_and_in_their_layout(tmp_path, mesh, tied):
    tensors = random_tensors(tied=tied, dtype="bfloat16")
    folder = write_model(tmp_path, tensors)
    asked = placed(hf.resolve_model(GIVEN, folder), MESHES[mesh]())
    found, expected = hf.load_weights(folder, asked), expected_weights(tensors)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x.dtype, x.sharding) == (y.dtype, y.sharding), found, asked))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("dtype", hf.DTYPES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_in_and_out_again_is_the_same_file(tmp_path, mesh, dtype, tied):
    folder = write_model(tmp_path / "in", random_tensors(tied=tied, dtype=dtype), dtype=dtype)
    (tmp_path / "out").mkdir()
    hf.save_weights(tmp_path / "out", loaded(folder, MESHES[mesh]()), vocab=VOCABULARY, dtype=hf.read_dtype(folder))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "out/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mesh", MESHES)
def test_several_files_in_and_out(tmp_path, mesh):
    tensors = random_tensors(dtype="bfloat16")
    folder = write_model(tmp_path / "in", tensors, files=3)
    out = tmp_path / "out"
    out.mkdir()
    limit = 4096
    hf.save_weights(out, loaded(folder, MESHES[mesh]()), vocab=VOCABULARY, dtype="bfloat16", max_shard_bytes=limit)
    found = stored_tensors(out)
    assert {n: (x.dtype, x.shape, x.tobytes()) for n, x in found.items()} == {
        n: (x.dtype, x.shape, x.tobytes()) for n, x in tensors.items()
    }
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 3
    assert set(index["weight_map"].values()) == set(files)
    # Files are filled in the order of the tensors.
    assert [index["weight_map"][name] for name in tensors] == sorted(index["weight_map"].values())
    sizes = {name: sum(x.nbytes for n, x in tensors.items() if index["weight_map"][n] == name) for name in files}
    assert max(sizes.values()) <= limit
    total = sum(sizes.values())
    assert index["metadata"] == {"total_parameters": total // 2, "total_size": total}
    # And what was written so can be read so.
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    jax.tree.map(np.testing.assert_array_equal, loaded(out, one_device()), expected_weights(tensors))


class Watched:
    """An open safetensors file that notes what is read of it."""

    def __init__(self, file, read):
        self.file, self.read = file, read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def get_slice(self, name):
        return WatchedSlice(name, self.file.get_slice(name), self.read)


class WatchedSlice:
    def __init__(self, name, part, read):
        self.name, self.part, self.read = name, part, read

    def get_shape(self):
        return self.part.get_shape()

    def __getitem__(self, index):
        value = self.part[index]
        self.read.append((self.name, value.size))
        return value


def test_each_device_reads_its_own_piece_and_nothing_else(tmp_path, monkeypatch):
    tensors, read = random_tensors(), []
    safe_open = hf_weights.safe_open
    monkeypatch.setattr(hf_weights, "safe_open", lambda *a, **k: Watched(safe_open(*a, **k), read))
    loaded(write_model(tmp_path, tensors), eight_devices())
    for name, value in tensors.items():
        pieces = [size for n, size in read if n == name]
        if "norm" in name:
            assert pieces == [value.size] * 8
        elif "bias" in name:
            assert pieces == [value.size // 2] * 8
        else:
            # 24 rows of a table: three a device, which the file's 21 fill for seven.
            parts = 7 if value.shape[0] == VOCABULARY else 8
            assert pieces == [value.size // parts] * parts, name


def test_every_device_has_memory_of_its_own_to_give_away(tmp_path):
    tensors = random_tensors()
    weights = loaded(write_model(tmp_path, tensors), eight_devices())
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    doubled, expected = double(weights), expected_weights(tensors)

    def check(leaf, value):
        assert all(np.array_equal(shard.data, 2 * value[shard.index]) for shard in leaf.addressable_shards)

    jax.tree.map(check, doubled, expected)


def test_values_are_rounded_to_the_nearest(tmp_path):
    weights = lively_weights(MODEL)
    hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="bfloat16")
    found = stored_tensors(tmp_path)["lm_head.weight"]
    exact = weights["head"][:VOCABULARY]
    np.testing.assert_array_equal(found, jnp.asarray(exact).astype(jnp.bfloat16))
    assert np.abs(found.astype(np.float32) - exact).max() <= np.abs(exact).max() * 2**-8


def test_who_may_read_a_folder_may_read_its_weights(tmp_path):
    hf.save_weights(tmp_path, lively_weights(MODEL), vocab=VOCABULARY)
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_model_without_biases_gets_zero_ones(tmp_path):
    model = dataclasses.replace(MODEL, qkv_bias=False)
    weights = lively_weights(model)
    hf.save_weights(tmp_path, weights, vocab=VOCABULARY)
    found = stored_tensors(tmp_path)
    assert found.keys() == random_tensors().keys()
    for layer in range(2):
        for name, size in (("q", 32), ("k", 16), ("v", 16)):
            np.testing.assert_array_equal(
                found[f"model.layers.{layer}.self_attn.{name}_proj.bias"], np.zeros(size, np.float32)
            )
    assert "query_bias" not in weights["blocks"]


def test_what_cant_be_written_is_refused(tmp_path):
    weights = lively_weights(MODEL)
    with pytest.raises(ValueError, match="'float8': use one of float32, bfloat16, float16"):
        hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="float8")
    weights["blocks"]["up"][1, 3, 4] = -7e4
    with pytest.raises(ValueError, match="layers.1.mlp.up_proj.weight has values beyond float16.*bfloat16"):
        hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="float16")
    assert not list(tmp_path.iterdir())


# Settings.


def test_settings_are_read_in_the_words_of_transformers_4_and_5(tmp_path):
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
    "another architecture": ({"model_type": "llama"}, ["'llama'", "only 'qwen2'"]),
    "missing keys": (
        {"hidden_size": None, "rms_norm_eps": None, "rope_theta": None},
        ["hidden_size: missing", "rms_norm_eps: missing", "rope_theta (or rope_parameters.rope_theta): missing"],
    ),
    "no number": (
        {"num_hidden_layers": "two", "num_attention_heads": 0},
        ["num_hidden_layers: 'two' is no number above 0", "num_attention_heads: 0 is no number above 0"],
    ),
    "rope scaling": (
        {"rope_scaling": {"type": "yarn", "factor": 4.0}, "hidden_act": "gelu"},
        ["rope scaling 'yarn' is not implemented", "hidden_act: 'gelu'"],
    ),
    "rope scaling of 5": (
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
        ["rope scaling 'linear'"],
    ),
    "sliding windows": ({"use_sliding_window": True, "max_window_layers": 1}, ["sliding windows are not implemented"]),
    "sliding windows of 5": (
        {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]},
        ["sliding windows are not implemented"],
    ),
    "quantized": ({"quantization_config": {"bits": 4}}, ["quantization_config", "isn't quantized"]),
    "odd heads": ({"num_attention_heads": 5}, ["num_attention_heads: 5 does not divide hidden_size: 32"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_that_cant_be_used_are_named_all_at_once(tmp_path, name):
    changes, words = BAD_SETTINGS[name]
    write_model(tmp_path, random_tensors(), **changes)
    with pytest.raises(ValueError) as raised:
        hf.read_model_settings(tmp_path)
    assert str(tmp_path / "config.json") in str(raised.value)
    assert all(word in str(raised.value) for word in words), raised.value


def test_no_folder_no_settings_no_json(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder.*hf download OWNER/NAME --local-dir"):
        hf.read_model_settings(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no config.json in it"):
        hf.read_model_settings(tmp_path)
    for content, words in (('{"model_type": ', "is no JSON: .*download it again"), ("[]", "is no JSON object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            hf.read_model_settings(tmp_path)


def test_the_folder_gives_the_shape_and_the_vocabulary_is_rounded_up(tmp_path):
    write_model(tmp_path, random_tensors(), rope_theta=1e6)
    model = hf.resolve_model(ModelConfig(path="p", dtype="bfloat16"), tmp_path)
    assert model == dataclasses.replace(
        MODEL, path="p", dtype="bfloat16", vocab=128, vocab_multiple=128, remat="full", rope_theta=1e6
    )
    # Resolved once more, or with the folder's own values said aloud, it is the same.
    assert hf.resolve_model(model, tmp_path) == model
    assert hf.resolve_model(dataclasses.replace(model, vocab=VOCABULARY), tmp_path) == model


def test_contradictions_to_the_folder_are_named_with_both_values(tmp_path):
    write_model(tmp_path, random_tensors())
    with pytest.raises(ValueError) as raised:
        hf.resolve_model(ModelConfig(layers=7, vocab=100, qkv_bias=False), tmp_path)
    for words in ("config.model.layers=7, but", "has layers=2", "vocab=100", "has vocab=128", "qkv_bias=False"):
        assert words in str(raised.value)
    assert "config.model.width" not in str(raised.value)


def test_settings_of_a_model_folder_are_copied_byte_for_byte(tmp_path):
    source = write_tokenizer(write_model(tmp_path / "source", random_tensors()))
    (source / "generation_config.json").write_text('{"eos_token_id":[1,2],  "temperature":0.7}')
    (source / "notes.txt").write_text("not of the model")
    hf.write_settings(tmp_path / "out", MODEL, load_tokenizer(source), source)
    names = ["chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert all((tmp_path / "out" / name).read_bytes() == (source / name).read_bytes() for name in names)


@pytest.mark.parametrize("model", [MODEL, dataclasses.replace(MODEL, tied_embedding=True, head_size=16)])
def test_settings_made_from_a_config_say_that_config(tmp_path, model):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    hf.write_settings(tmp_path / "out", model, tokenizer)
    # The tokenizer's size, not the model's padded rows.
    expected = dataclasses.replace(model, vocab=VOCABULARY)
    assert dataclasses.replace(model, **hf.read_model_settings(tmp_path / "out")) == expected
    assert tokenizer.vocab_size == VOCABULARY
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == {"eos_token_id": [1, 2]}
    assert hf.read_dtype(tmp_path / "out") == "float32"
    assert load_tokenizer(tmp_path / "out").eos_ids == tokenizer.eos_ids == (1, 2)


def test_the_dtype_of_a_folder(tmp_path):
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


# Broken weights.

LAYER = "model.layers.{}.mlp.up_proj.weight"


def faults_of(folder):
    with pytest.raises(ValueError) as raised:
        hf.check_weights(folder, placed(hf.resolve_model(GIVEN, folder), one_device()))
    assert str(folder) in str(raised.value)
    return str(raised.value)


def test_all_faults_of_the_tensors_are_said_at_once(tmp_path):
    tensors = random_tensors()
    del tensors["model.norm.weight"]
    tensors[LAYER.format(0)] = tensors[LAYER.format(0)].T.copy()
    tensors[LAYER.format(1)] = tensors[LAYER.format(1)].astype(np.int32)
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["lm_head.weight"]
    said = faults_of(write_model(tmp_path, tensors))
    assert said.splitlines()[1:] == [
        "  missing: model.norm.weight",
        "  not of this model: model.layers.2.mlp.up_proj.weight",
        "  of a shape that config.json doesn't say: model.layers.0.mlp.up_proj.weight is [32, 48], not [48, 32]",
        "  neither of float32, bfloat16, float16: model.layers.1.mlp.up_proj.weight is I32",
    ]


def test_many_faults_of_a_kind_stay_readable(tmp_path):
    tensors = {name: x for name, x in random_tensors().items() if "layers" not in name}
    (line,) = faults_of(write_model(tmp_path, tensors)).splitlines()[1:]
    assert line.startswith("  missing: model.layers.0.self_attn.q_proj.weight, ")
    assert line.endswith(", … and 16 more")
    assert line.count("model.layers") == 8


def test_a_file_that_was_cut_off_names_the_tensors_that_it_lacks(tmp_path):
    path = write_model(tmp_path, random_tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "cut off, as the file is too short; download it again: model.norm.weight" in faults_of(tmp_path)
    path.write_bytes(path.read_bytes()[: -4 * 32 - 4])
    assert faults_of(tmp_path).endswith("download it again: model.layers.1.self_attn.v_proj.weight, model.norm.weight")


def test_what_says_nothing_is_ignored(tmp_path):
    tensors = random_tensors(tied=True)
    extra = {
        "lm_head.weight": tensors["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    weights = loaded(write_model(tmp_path, tensors | extra, tie_word_embeddings=True), one_device())
    jax.tree.map(np.testing.assert_array_equal, weights, expected_weights(tensors))


BROKEN_FILES = {
    "empty": b"",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "no JSON": (5).to_bytes(8, "little") + b"{'a':" + bytes(99),
    "no object": (2).to_bytes(8, "little") + b"[]" + bytes(99),
    "no entries": (9).to_bytes(8, "little") + b'{"a": {}}' + bytes(99),
    "more behind": (2).to_bytes(8, "little") + b"{}" + bytes(99),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_file_without_a_readable_header(tmp_path, name):
    folder = write_model(tmp_path, random_tensors(), files=3)
    (folder / "model-00002-of-00003.safetensors").write_bytes(BROKEN_FILES[name])
    said = faults_of(folder)
    assert f"model-00002-of-00003.safetensors ({len(BROKEN_FILES[name])} bytes) has no readable header" in said
    assert "missing: model.layers.0" in said


def test_an_index_and_its_files(tmp_path):
    folder = write_model(tmp_path, random_tensors(), files=3)
    (folder / "model-00002-of-00003.safetensors").rename(folder / "elsewhere.safetensors")
    assert "index.json names model-00002-of-00003.safetensors, which isn't there" in faults_of(folder)
    index = folder / "model.safetensors.index.json"
    place = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": place | {"x": "elsewhere.safetensors", "y": "copy.safetensors"}}))
    (folder / "copy.safetensors").write_bytes((folder / "elsewhere.safetensors").read_bytes())
    assert "is in both copy.safetensors and elsewhere.safetensors" in faults_of(folder)
    index.write_text("{}")
    assert "index.json is no index of safetensors files" in faults_of(folder)


def test_a_folder_without_safetensors(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    asked = placed(hf.resolve_model(GIVEN, tmp_path), one_device())
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor .*hf download"):
        hf.load_weights(tmp_path, asked)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never unpickled")
    with pytest.raises(ValueError, match=r"pytorch_model.bin, and only safetensors are read. .*save_pretrained"):
        hf.load_weights(tmp_path, asked)
