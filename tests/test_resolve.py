"""The resolved config: its model folder, its vocabulary, and sizes that must divide over the mesh."""

import dataclasses

import jax
import pytest

from helpers.experiments import small
from helpers.gguf_models import draw_tensors, write_gguf
from helpers.model_folders import random_tensors, write_model, write_tokenizer
from helpers.small_parts import MODEL
from nft_jax import losses
from nft_jax.models import attention_backends
from nft_jax.parallel.mesh import make_mesh
from nft_jax.resolve import (
    check_sizes,
    check_tokens,
    locate,
    resolve,
    resolve_precision,
    use_kept_settings,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts_per_step": 6}, ["6 candidate prompts a round are not divisible by 4 data shards", "use 4 or 8"]),
        (
            {"selection__candidates_per_round": 2},
            ["2 candidate prompts a round are not divisible by 4 data shards; use 4"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 1, "loss__name": "grpo"},
            ["4 prompts × 1 answers = 4 answers are not divisible by 8 devices"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 3, "updates_per_step": 2, "loss__name": "dpo"},
            ["2 prompts × 1 pairs = 2 units are not divisible by 4 data shards", "updates_per_step=2"],
        ),
        (
            {"warm_start__steps": 1, "warm_start__examples_per_update": 6},
            ["config.warm_start.examples_per_update=6 is not divisible by 4 data shards; use 4 or 8"],
        ),
        (
            {"warm_start__steps": 1, "warm_start__examples_per_update": 3},
            ["config.warm_start.examples_per_update=3 is not divisible by 4 data shards; use 4"],
        ),
        ({"model__kv_heads": 1}, ["1 key-value heads are not divisible by mesh.tensor=2"]),
        (
            {"mesh__sequence_parallel": True, "packing__row_tokens": 31, "data__max_prompt_tokens": 15},
            [
                "config.packing.row_tokens=31 tokens over mesh.tensor=2",
                "use 32",
                "config.data.max_prompt_tokens=15",
                "use 16",
            ],
        ),
    ],
)
def test_check_sizes_names_sizes_that_divide(changes, words):
    config = small(**changes)
    with pytest.raises(ValueError, match="does not divide over the mesh") as raised:
        check_sizes(config, losses.resolve(config.loss.name, config.loss.options), make_mesh(4, 2))
    assert all(word in str(raised.value) for word in words), raised.value


EXPERTS = {"model__experts": 4, "model__experts_per_token": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rollout__weights": "int8"}, ["config.rollout.weights='int8'", "leave it out"]),
        (
            {"lora__rank": 2, "lora__targets": "query", "lora__base": "int8"},
            ["config.lora.base='int8': weights of experts are not rounded"],
        ),
        ({"lora__rank": 2}, ["gate, up, down are weights of experts", "use 'query, key, value, output'"]),
        ({"lora__rank": 2, "lora__targets": "up"}, ["config.lora.targets: up", "use 'query, key, value, output'"]),
    ],
)
def test_resolve_refuses_what_experts_cannot_have(tmp_path, changes, words):
    with pytest.raises(ValueError, match="the model has 4 experts a layer") as raised:
        resolve(small(**EXPERTS, **changes), tmp_path, 17, make_mesh(1, 1, jax.devices()[:1]))
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(("vocabulary", "rows"), [(17, 24), (24, 24), (25, 32)])
def test_resolve_fills_in_the_rows_of_the_embedding(tmp_path, vocabulary, rows):
    config = small()
    mesh = make_mesh(1, 1, jax.devices()[:1])
    resolved = resolve(config, tmp_path, vocabulary, mesh)
    assert (config.model.vocab, resolved.model.vocab) == (0, rows)
    assert resolve(resolved, tmp_path, vocabulary, mesh) == resolved


@pytest.mark.parametrize(("given", "slots"), [(0, 16), (12, 12), (40, 16)])
def test_resolve_fills_in_the_slots_and_shards_that_decide_which_weights_draw(tmp_path, given, slots):
    """A data shard of 4 answers a round, and 4 rounds in flight."""
    sizes = {"mesh__data": -1, "rollout__slots": given, "rollout__max_age_steps": 3}
    mesh = make_mesh(-1, 1)
    whole, partial = (resolve(small(rollout__partial=p, **sizes), tmp_path, 17, mesh) for p in (False, True))
    assert (whole.rollout.slots, whole.mesh.data) == (given, -1)
    assert (partial.rollout.slots, partial.mesh.data) == (slots, 8)
    assert resolve(partial, tmp_path, 17, mesh) == partial


@pytest.mark.parametrize(
    ("dtype", "precision", "resolved"),
    [
        ("auto", "auto", ("float32", "highest")),
        ("auto", "high", ("float32", "high")),
        ("bfloat16", "auto", ("bfloat16", "default")),
        ("bfloat16", "highest", ("bfloat16", "highest")),
    ],
)
def test_resolve_precision_fills_in_what_is_left_open(dtype, precision, resolved):
    config = small(model__dtype=dtype, model__precision=precision)
    model = resolve_precision(config, jax.devices("cpu")[0]).model
    assert (model.dtype, model.precision) == resolved


def test_resolve_fills_in_the_rows_of_a_micro_batch(tmp_path):
    config = small(packing__rows_per_micro_batch=0, updates_per_step=2)
    for data, rows in ((1, 16), (2, 8)):
        resolved = resolve(config, tmp_path, 17, make_mesh(data, 1, jax.devices()[:data]))
        assert resolved.packing.rows_per_micro_batch == rows  # all 4 × 4 answers of an update


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"max_position_embeddings": 11}, "max_position_embeddings=11"),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, ""),
        ({"max_position_embeddings": 40, "rope_scaling": {"type": "yarn", "factor": 4.0}}, ""),
    ],
)
def test_check_tokens_refuses_prompts_and_answers_that_the_model_cannot_read(tmp_path, fields, least):
    write_model(tmp_path, random_tensors(), **fields)
    for answer in (6, 7):
        config = small(model__path=str(tmp_path), data__max_prompt_tokens=5, rollout__max_answer_tokens=answer)
        if answer == 6 or not least:
            check_tokens(config)
            continue
        with pytest.raises(
            ValueError, match=f"=5 \\+ .*=7 = 12 tokens exceed {least} of the model in .*max_answer_tokens=6 or less"
        ):
            check_tokens(config)


def test_resolve_leaves_out_a_window_that_no_sequence_exceeds(tmp_path):
    """Then kernels can be used; with a window that is shorter than a prompt with its answer they are refused."""
    windows = {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    folder = write_tokenizer(write_model(tmp_path / "source", random_tensors(), **windows))
    mesh = make_mesh(1, 1, jax.devices()[:1])
    for tokens, expected in ((6, ("f", 0)), (7, ("fw", 11))):
        paths = {"model__path": str(folder), "data__max_prompt_tokens": 5, "rollout__max_answer_tokens": tokens}
        resolved = resolve(small(**paths, packing__row_tokens=40), tmp_path, 8, mesh)
        assert (resolved.model.layer_kinds, resolved.model.window) == expected
        assert resolve(resolved, tmp_path, 8, mesh) == resolved
    with pytest.raises(ValueError, match="'splash' has no layers that attend over a window.* 11 tokens"):
        attention_backends.select_attention(
            dataclasses.replace(resolved.model, attention="splash"), mesh, interpret=True
        )


def test_resolve_shares_prompts_with_a_kernel_only_where_it_is_asked_to_and_can(tmp_path, monkeypatch):
    mesh = make_mesh(1, 1, jax.devices()[:1])

    def shared(attention, choice, **changes):
        monkeypatch.setitem(attention_backends.PLATFORM, attention, "cpu")
        config = small(model__attention=attention, model__vocab=8, packing__share_prompts=choice, **changes)
        return resolve(config, tmp_path, 8, mesh).packing.share_prompts

    for attention in ("splash", "triton"):
        assert shared(attention, "auto") == shared(attention, "no") == "no"
    assert shared("splash", "yes") == shared("xla", "yes") == "yes"
    changes = {"model__dtype": "bfloat16", "model__head_size": 8}
    assert [shared("cudnn_packed", choice, **changes) for choice in ("auto", "yes")] == ["no", "yes"]
    with pytest.raises(
        ValueError, match="share_prompts='yes': attention by triton .*is not merged.*use 'auto' or 'no'"
    ):
        shared("triton", "yes")


def test_resolve_takes_the_shape_of_the_model_folder(tmp_path):
    folder = write_tokenizer(write_model(tmp_path / "source", random_tensors()))
    config = small(model__path=str(folder), model__width=256, model__layers=4)  # the defaults
    resolved = resolve(config, tmp_path, 8, make_mesh(1, 1, jax.devices()[:1]))
    assert resolved.data.tokenizer == str(folder)
    assert (resolved.model.width, resolved.model.layers) == (MODEL.width, MODEL.layers)
    with pytest.raises(ValueError, match="do not belong together"):
        resolve(config, tmp_path, 10**6, make_mesh(1, 1, jax.devices()[:1]))


def test_locate_takes_the_copy_in_the_workdir_if_the_model_folder_is_gone(tmp_path):
    write_tokenizer(write_model(tmp_path / "model", random_tensors()))
    located = locate(small(model__path=str(tmp_path / "gone")), tmp_path)
    assert located.model.path == located.data.tokenizer == str(tmp_path / "model")


def test_use_kept_settings_prefers_the_copy_in_the_workdir(tmp_path):
    copy, source = (write_tokenizer(write_model(tmp_path / n, random_tensors())) for n in ("model", "source"))
    kept = use_kept_settings(small(model__path=str(source)), tmp_path)
    assert (kept.model.path, kept.data.tokenizer) == (str(copy), str(copy))
    own = use_kept_settings(small(model__path=str(source), data__tokenizer="mine"), tmp_path)
    assert own.data.tokenizer == "mine"
    for config, folder in ((small(), tmp_path), (small(model__path=str(source)), source)):
        assert use_kept_settings(config, folder) == config


def test_locate_takes_a_gguf_file_for_model_and_tokenizer(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_gguf(tmp_path / "model.gguf", draw_tensors("qwen2", 40))
    located = locate(small(model__path="~/model.gguf"), tmp_path / "run")
    assert (located.model.path, located.data.tokenizer) == (str(path), str(path))
    assert locate(small(model__path=str(path), data__tokenizer="other"), tmp_path / "run").data.tokenizer == "other"


def test_locate_finds_a_named_model_and_suggests_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.setattr("nft_jax.resolve.find_model", lambda path, kept: write_model(tmp_path / path, random_tensors()))
    assert locate(small(model__path="smollm2"), tmp_path).model.path == str(tmp_path / "smollm2")
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="did you mean 'smollm2'"):
        locate(small(model__path="smollm"), tmp_path)
