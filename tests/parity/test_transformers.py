"""Parity with transformers: the same numbers from the same folder, and folders that each reads from the other.

`python tests/parity/table.py` prints the differences.
"""

import copy
import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import nft_jax
from helpers.model_folders import abstract_weights, write_tokenizer
from helpers.parity import (
    choose_eos_ids,
    differences,
    load_in_bfloat16,
    our_logits_and_logp,
    our_outputs,
    pack_rows,
    read_folder,
    round_trip_is_identical,
    sequences,
    their_logits_and_logp,
    their_outputs,
)
from helpers.parity_models import MODELS, PUBLISHED, SIZES, random_model
from helpers.small_parts import MODEL, VOCABULARY, eight_devices, lively_weights
from nft_jax.config import RopeScaling
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.models import hf, transformer
from nft_jax.models.hf.settings import parse_settings

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("torch")]


OLMO3 = {"norms": "after", "qk_norm": "all", "qkv_bias": False, "layer_kinds": "wf", "window_rope_theta": 10000.0}
GEMMA3 = {
    **{"norms": "both", "norm_offset": 1.0, "qk_norm": "head", "qkv_bias": False, "layer_kinds": "wf"},
    **{"window_rope_theta": 50.0, "activation": "gelu_tanh", "embedding_scaled": True},
}


@pytest.fixture(scope="module", params=MODELS)
def twin(request, tmp_path_factory, torch):
    """A folder that transformers wrote, and the model it wrote."""
    folder = tmp_path_factory.mktemp("twin")
    return folder, random_model(folder, request.param)


def has_experts(twin):
    return twin[1].config.model_type.endswith("_moe")


@pytest.fixture(scope="module")
def exact(twin, tmp_path_factory):
    """Tokens that end answers, and what transformers computes in float32."""
    eos_ids = choose_eos_ids(twin[1])
    return eos_ids, their_outputs(twin[1], eos_ids, tmp_path_factory.mktemp("exact"))


def test_random_model_has_varied_logits_and_answer_lengths(exact):
    """Logits differ by nats, some answers end early and some don't."""
    _, outputs = exact
    assert np.ptp(outputs.logits) > 10
    assert len(set((outputs.greedy != 0).sum(axis=1))) > 2


def test_float32_matches_transformers_to_float32_rounding(twin, exact):
    """`python tests/parity/table.py` shows what is seen; each bound is about ten times that."""
    eos_ids, expected = exact
    found = differences(our_outputs(twin[0], eos_ids), expected)
    assert found.logits < 1e-4
    assert found.logp < 1e-4
    assert found.packed < 1e-4
    assert found.gradient < 1e-4
    assert found.greedy == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_match_transformers_to_float32_rounding(tmp_path, torch, name):
    model = random_model(tmp_path / "in", name)
    fields = SIZES | {"num_hidden_layers": 2} | PUBLISHED[name]
    assert parse_settings(fields, tmp_path) == hf.read_model_settings(tmp_path / "in")
    eos_ids = choose_eos_ids(model)
    found = differences(our_outputs(tmp_path / "in", eos_ids), their_outputs(model, eos_ids, tmp_path / "gradient"))
    assert max(found.logits, found.logp, found.packed, found.gradient) < 1e-4
    assert found.greedy == 1
    assert round_trip_is_identical(tmp_path / "in", tmp_path / "out")


def test_bfloat16_is_as_close_to_transformers_as_its_rounding(twin, exact, tmp_path):
    """Transformers' own rounding to bfloat16 moves its numbers as far from its float32."""
    eos_ids, expected = exact
    half = their_outputs(load_in_bfloat16(twin[0]), eos_ids, tmp_path)
    ours_half = our_outputs(twin[0], eos_ids, "bfloat16")
    rounding, our_rounding = differences(half, expected), differences(ours_half, expected)
    apart = differences(ours_half, half)
    # Experts with nearly the same score change places, and then all that follows is other numbers.
    most = 3 if has_experts(twin) else 2
    for quantity in ("logits", "logp", "packed", "gradient"):
        assert getattr(apart, quantity) < most * getattr(rounding, quantity), quantity
        assert getattr(our_rounding, quantity) < most * getattr(rounding, quantity), quantity
        assert getattr(our_rounding, quantity) > 1e-3, "this ran in float32"
    assert rounding.logits < 0.5 or has_experts(twin)


@pytest.mark.parametrize("limit", [None, 50_000], ids=["one file", "several"])
@pytest.mark.parametrize("dtype", hf.DTYPES)
def test_save_weights_writes_the_files_that_transformers_wrote(twin, tmp_path, torch, dtype, limit):
    model = copy.deepcopy(twin[1]).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "in", **({"max_shard_size": limit} if limit else {}))
    assert (len(list((tmp_path / "in").glob("*.safetensors"))) > 1) == (limit is not None)
    if limit and has_experts(twin):
        # transformers 5 keeps together the experts of one of its tensors; transformers 4 wrote them as we do.
        round_trip_is_identical(tmp_path / "in", tmp_path / "out", max_shard_bytes=limit)
        shutil.copy(tmp_path / "in" / "config.json", tmp_path / "out")
        written = [load_in_transformers(tmp_path / name).state_dict() for name in ("in", "out")]
        assert all(torch.equal(written[1][name], value) for name, value in written[0].items())
    else:
        limits = {"max_shard_bytes": limit} if limit else {}
        assert round_trip_is_identical(tmp_path / "in", tmp_path / "out", **limits)


def load_in_transformers(folder):
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("dtype", hf.DTYPES)
def test_transformers_loads_equal_tensors_after_save_weights(twin, tmp_path, torch, dtype):
    folder, model = twin
    read = read_folder(folder)
    hf.write_settings(tmp_path, read.config, load_tokenizer(write_tokenizer(tmp_path / "tokenizer")), folder)
    hf.write_dtype(tmp_path, dtype)
    hf.save_weights(tmp_path, read.weights, vocab=read.vocabulary, dtype=dtype, max_shard_bytes=2**17)
    found = load_in_transformers(tmp_path).state_dict()
    expected = model.to(torch.float32).state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == getattr(torch, dtype)
        assert torch.equal(found[name], value.to(getattr(torch, dtype))), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_size": 12, "tied_embedding": True},
        {"qkv_bias": False, "rope_theta": 1e6, "norm_epsilon": 1e-5},
        {"output_bias": True, "mlp_bias": True, "rope_scaling": RopeScaling("llama3", 8.0, 16)},
        OLMO3 | {"rope_scaling": RopeScaling("yarn", 4.0, 16)},
        {"qk_norm": "head", "qkv_bias": False, "experts": 4, "experts_per_token": 2, "experts_normalized": True},
        GEMMA3 | {"query_scalar": 20.0, "rope_scaling": RopeScaling("linear", 4.0)},
    ],
    ids=[
        "plain",
        "tied, with a head size of its own",
        "without biases",
        "with all biases, scaled",
        "olmo3",
        "experts",
        "gemma3",
    ],
)
def test_transformers_computes_the_same_after_save_weights(tmp_path, torch, changes):
    config = dataclasses.replace(MODEL, **changes)
    weights, tokenizer = lively_weights(config), load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    hf.write_settings(tmp_path / "out", config, tokenizer)
    hf.save_weights(tmp_path / "out", weights, vocab=tokenizer.vocab_size)
    model = load_in_transformers(tmp_path / "out")
    assert model.generation_config.eos_token_id == [1, 2]
    rows = [row % VOCABULARY for row in sequences()]
    read = read_folder(tmp_path / "out")
    # What was written, and the weights themselves.
    graph, _, _ = transformer.abstract_model(config, VOCABULARY)
    own = read._replace(config=config, graph=graph, weights=weights)
    expected, _ = their_logits_and_logp(model, rows)
    for which in (read, own):
        found, _ = our_logits_and_logp(which, pack_rows([[row] for row in rows]))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_load_weights_on_eight_devices_reads_the_same(twin):
    read = read_folder(twin[0])
    spread = hf.load_weights(twin[0], abstract_weights(read.config, eight_devices()))
    jax.tree.map(np.testing.assert_array_equal, spread, read.weights)


def test_check_weights_tells_the_reading_of_transformers_for_a_head_beside_a_tied_embedding(tmp_path, torch):
    """What the message says to type gives the numbers of transformers, which doesn't tie such a model."""
    random_model(tmp_path, "qwen2")
    path = tmp_path / "config.json"
    values = json.loads(path.read_text()) | {"tie_word_embeddings": True}
    path.write_text(json.dumps(values))
    expected, _ = their_logits_and_logp(load_in_transformers(tmp_path), sequences())
    with pytest.raises(ValueError, match="set tie_word_embeddings to false"):
        read_folder(tmp_path)
    path.write_text(json.dumps(values | {"tie_word_embeddings": False}))
    found, _ = our_logits_and_logp(read_folder(tmp_path), pack_rows([[row] for row in sequences()]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_text_part_of_a_gemma3_that_reads_images_is_read_after_the_lines_of_the_readme(tmp_path, torch, monkeypatch):
    """nft_jax/models/README.md has the lines, for a folder that is refused."""
    import transformers

    monkeypatch.chdir(tmp_path)
    page = Path(nft_jax.__file__).parent / "models" / "README.md"
    (lines,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    text = SIZES | {"num_hidden_layers": 2, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14}, image_token_index=100
    )
    whole = transformers.Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained("FOLDER")
    with pytest.raises(ValueError, match="this Gemma 3 reads images too"):
        hf.read_model_settings(Path("FOLDER"))
    exec(lines, {})
    rows = [row % 90 for row in sequences(3)]  # ids of images are the last ones
    found, _ = our_logits_and_logp(read_folder(Path("NEW_FOLDER")), pack_rows([[row] for row in rows]))
    np.testing.assert_allclose(found, their_logits_and_logp(whole, rows)[0], rtol=0, atol=1e-4)
