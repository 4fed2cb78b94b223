"""Weights of Hugging Face model folders: read and written bit for bit on any mesh; all faults are named at once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.model_folders import (
    CONFIG,
    abstract_weights,
    load_folder,
    random_tensors,
    stored_tensors,
    weight_faults,
    write_model,
)
from helpers.small_parts import MODEL, ROWS, VOCABULARY, eight_devices, lively_weights, one_device
from nft_jax.models import hf
from nft_jax.models.hf import weights as hf_weights
from nft_jax.models.int8 import quantize_stack

MESHES = {"one device": one_device, "eight devices": eight_devices}


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
def test_load_weights_transposes_stacks_pads_and_lays_out(tmp_path, mesh, tied):
    tensors = random_tensors(tied=tied, dtype="bfloat16")
    folder = write_model(tmp_path, tensors)
    abstract = abstract_weights(hf.resolve_model(CONFIG, folder), MESHES[mesh]())
    found, expected = hf.load_weights(folder, abstract), expected_weights(tensors)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x.dtype, x.sharding) == (y.dtype, y.sharding), found, abstract))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("dtype", hf.DTYPES)
def test_load_weights_refuses_a_tensor_that_is_not_finite(tmp_path, dtype, value):
    for name, clean in random_tensors().items():
        tensors = random_tensors(dtype=dtype)
        tensors[name][(1,) * clean.ndim] = value
        with pytest.raises(ValueError) as raised:
            load_folder(write_model(tmp_path, tensors, dtype=dtype), eight_devices())
        assert f"{tmp_path}: NaN or inf in {name} (1 of " in str(raised.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_load_weights_refuses_a_tensor_that_is_not_finite_and_becomes_int8(tmp_path, value):
    """Each weight is converted before the next one is read; NaN and inf stay in the scale of their channel."""
    tensors, seen = random_tensors(), []

    def convert(name, weight):
        seen.append(name)
        return quantize_stack(weight) if weight.ndim == 3 else weight

    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    folder = write_model(tmp_path, tensors)
    with pytest.raises(ValueError, match=r"NaN or inf in model\.layers\.1\.mlp\.up_proj\.weight \(1 of "):
        hf.load_weights(folder, abstract_weights(hf.resolve_model(CONFIG, folder), one_device()), convert)
    assert sorted(seen) == sorted(expected_weights(tensors)["blocks"])


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("dtype", hf.DTYPES)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_save_weights_writes_the_file_that_load_weights_read(tmp_path, mesh, dtype, tied):
    folder = write_model(tmp_path / "in", random_tensors(tied=tied, dtype=dtype), dtype=dtype)
    (tmp_path / "out").mkdir()
    hf.save_weights(
        tmp_path / "out", load_folder(folder, MESHES[mesh]()), vocab=VOCABULARY, dtype=hf.read_dtype(folder)
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "out/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mesh", MESHES)
def test_save_weights_splits_into_files_with_an_index(tmp_path, mesh):
    tensors = random_tensors(dtype="bfloat16")
    folder = write_model(tmp_path / "in", tensors, files=3)
    out = tmp_path / "out"
    out.mkdir()
    limit = 4096
    hf.save_weights(out, load_folder(folder, MESHES[mesh]()), vocab=VOCABULARY, dtype="bfloat16", max_shard_bytes=limit)
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
    # The files read back as the same weights.
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    jax.tree.map(np.testing.assert_array_equal, load_folder(out, one_device()), expected_weights(tensors))


class Watched:
    """An open safetensors file that records what is read from it."""

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


def test_load_weights_reads_only_its_own_piece_on_each_device(tmp_path, monkeypatch):
    tensors, read = random_tensors(), []
    safe_open = hf_weights.safe_open
    monkeypatch.setattr(hf_weights, "safe_open", lambda *a, **k: Watched(safe_open(*a, **k), read))
    load_folder(write_model(tmp_path, tensors), eight_devices())
    for name, value in tensors.items():
        pieces = [size for n, size in read if n == name]
        if "norm" in name:
            assert pieces == [value.size] * 8
        elif "bias" in name:
            assert pieces == [value.size // 2] * 8
        else:
            # A table has 24 rows, three a device; the file's 21 rows fill those of seven devices.
            parts = 7 if value.shape[0] == VOCABULARY else 8
            assert pieces == [value.size // parts] * parts, name


def test_load_weights_gives_each_device_memory_that_it_may_donate(tmp_path):
    tensors = random_tensors()
    weights = load_folder(write_model(tmp_path, tensors), eight_devices())
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    doubled, expected = double(weights), expected_weights(tensors)

    def check(leaf, value):
        assert all(np.array_equal(shard.data, 2 * value[shard.index]) for shard in leaf.addressable_shards)

    jax.tree.map(check, doubled, expected)


def test_save_weights_rounds_to_nearest(tmp_path):
    weights = lively_weights(MODEL)
    hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="bfloat16")
    found = stored_tensors(tmp_path)["lm_head.weight"]
    exact = weights["head"][:VOCABULARY]
    np.testing.assert_array_equal(found, jnp.asarray(exact).astype(jnp.bfloat16))
    assert np.abs(found.astype(np.float32) - exact).max() <= np.abs(exact).max() * 2**-8


def test_save_weights_writes_files_with_the_usual_permissions(tmp_path):
    hf.save_weights(tmp_path, lively_weights(MODEL), vocab=VOCABULARY)
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_save_weights_refuses_unknown_dtypes_and_overflow(tmp_path):
    weights = lively_weights(MODEL)
    with pytest.raises(ValueError, match="'float8': use one of float32, bfloat16, float16"):
        hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="float8")
    weights["blocks"]["up"][1, 3, 4] = -7e4
    with pytest.raises(ValueError, match="layers.1.mlp.up_proj.weight has values beyond float16.*bfloat16"):
        hf.save_weights(tmp_path, weights, vocab=VOCABULARY, dtype="float16")
    assert not list(tmp_path.iterdir())


LAYER = "model.layers.{}.mlp.up_proj.weight"


def test_check_weights_names_all_faults_at_once(tmp_path):
    tensors = random_tensors()
    del tensors["model.norm.weight"]
    tensors[LAYER.format(0)] = tensors[LAYER.format(0)].T.copy()
    tensors[LAYER.format(1)] = tensors[LAYER.format(1)].astype(np.int32)
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["lm_head.weight"]
    message = weight_faults(write_model(tmp_path, tensors))
    assert message.splitlines()[1:] == [
        "  missing: model.norm.weight",
        "  not of this model: model.layers.2.mlp.up_proj.weight",
        "  not of the shape that config.json implies: model.layers.0.mlp.up_proj.weight is [32, 48], not [48, 32]",
        "  none of float32, bfloat16, float16: model.layers.1.mlp.up_proj.weight is I32",
    ]


def test_check_weights_abbreviates_many_faults_of_a_kind(tmp_path):
    tensors = {name: x for name, x in random_tensors().items() if "layers" not in name}
    (line,) = weight_faults(write_model(tmp_path, tensors)).splitlines()[1:]
    assert line.startswith("  missing: model.layers.0.self_attn.q_proj.weight, ")
    assert line.endswith(", … and 16 more")
    assert line.count("model.layers") == 8


def test_check_weights_names_the_tensors_that_a_truncated_file_lacks(tmp_path):
    path = write_model(tmp_path, random_tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "truncated, so download the file again: model.norm.weight" in weight_faults(tmp_path)
    path.write_bytes(path.read_bytes()[: -4 * 32 - 4])
    assert weight_faults(tmp_path).endswith(
        "download the file again: model.layers.1.self_attn.v_proj.weight, model.norm.weight"
    )


def test_load_weights_ignores_redundant_tensors(tmp_path):
    tensors = random_tensors(tied=True)
    extra = {
        "lm_head.weight": tensors["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    weights = load_folder(write_model(tmp_path, tensors | extra, tie_word_embeddings=True), one_device())
    jax.tree.map(np.testing.assert_array_equal, weights, expected_weights(tensors))


@pytest.mark.parametrize("files", [1, 3])
def test_check_weights_refuses_a_head_that_contradicts_a_tied_embedding(tmp_path, monkeypatch, files):
    """Which rows are compared together must not matter."""
    monkeypatch.setattr(hf_weights, "_ROWS_AT_A_TIME", 8)
    tensors = random_tensors(tied=True, dtype="bfloat16")
    for row in (0, 8, VOCABULARY - 1):
        head = tensors["model.embed_tokens.weight"].copy()
        head[row, 3] += 1
        folder = write_model(
            tmp_path / str(row), tensors | {"lm_head.weight": head}, files=files, tie_word_embeddings=True
        )
        faults = weight_faults(folder)
        assert "lm_head.weight differs from model.embed_tokens.weight, though config.json ties them" in faults
        assert "set tie_word_embeddings to false" in faults
    write_model(folder, tensors | {"lm_head.weight": head[:-1]}, files=files, tie_word_embeddings=True)
    assert "lm_head.weight differs" in weight_faults(folder)
