"""The export of a run's weights as a model folder, complete or not at all, and its refusals."""

import dataclasses
import json
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import commands
from helpers.gguf_models import TEXTS, draw_tensors, tokenizer_values, train_tokenizer, write_gguf
from helpers.model_folders import abstract_weights, random_tensors, stored_tensors, write_model, write_tokenizer
from helpers.small_parts import MODEL, VOCABULARY, eight_devices, lively_weights, one_device
from nft_jax import export as export_module
from nft_jax.config import Config, ModelConfig, to_dict
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.export import export
from nft_jax.models import hf
from nft_jax.models.hf.gguf import GgufTensors
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.state import State
from nft_jax.verify.pool import pool

CONFIG = Config(old_logp="sampler", model=dataclasses.replace(MODEL, vocab=0, vocab_multiple=8))


def write_run(workdir, config, weights, source=None):
    """Writes the files of a run: its config, the model's settings, and checkpoints with these weights by step."""
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(to_dict(config)))
    tokenizer = load_tokenizer(source or write_tokenizer(workdir / "tokenizer"))
    hf.write_settings(workdir / "model", config.model, tokenizer, source)
    with Checkpoints(workdir, keep=9) as checkpoints:
        for step, tree in weights.items():
            checkpoints.save(step, State(tree, {"count": jnp.int32(0)}, jnp.int32(step), jnp.int32(0), None, None), {})
        checkpoints.wait()
    return workdir


def on(mesh, weights, model=MODEL):
    return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), weights, abstract_weights(model, mesh))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that started from random weights, with steps 2 and 5."""
    weights = {step: on(eight_devices(), lively_weights(MODEL, seed=step)) for step in (2, 5)}
    return write_run(tmp_path_factory.mktemp("export") / "run", CONFIG, weights)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run that started from a model folder in bfloat16; the folder's vocabulary is no multiple of 8."""
    folder = tmp_path_factory.mktemp("tuned")
    tensors = random_tensors(dtype="bfloat16")
    source = write_tokenizer(write_model(folder / "source", tensors, dtype="bfloat16", rope_theta=1e6))
    (source / "generation_config.json").write_text('{"eos_token_id": [2,1]}')
    config = Config(old_logp="sampler", model=ModelConfig(path=str(source), vocab_multiple=8))
    weights = hf.load_weights(source, abstract_weights(hf.resolve_model(config.model, source), one_device()))
    return write_run(folder / "run", config, {1: weights}, source), source


@pytest.mark.parametrize(("step", "taken"), [(None, 5), (2, 2)])
def test_export_writes_the_weights_of_a_step(run, tmp_path, step, taken):
    message = export(CONFIG, run, tmp_path / "new" / "out", step)
    out = tmp_path / "new" / "out"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    model = hf.resolve_model(ModelConfig(vocab_multiple=8, remat="none"), out)
    assert model == dataclasses.replace(MODEL, vocab_multiple=8)
    found = hf.load_weights(out, abstract_weights(model, one_device()))
    expected = lively_weights(MODEL, seed=taken)
    for name in ("embedding", "head"):
        # Rows beyond the tokenizer's ids are not exported, because they are never sampled.
        expected[name][VOCABULARY:] = 0
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert load_tokenizer(out).eos_ids == (1, 2)
    assert f"step {taken} of {run}" in message
    assert f'from_pretrained("{out}")' in message
    assert "float32" in message
    assert f"{sum(x.size for x in stored_tensors(out).values()):,} weights" in message


def test_export_reproduces_an_untrained_model_folder(tuned, tmp_path):
    run, source = tuned
    (tmp_path / "out").mkdir()  # empty: as good as none
    export(Config(old_logp="sampler", model=ModelConfig(path="moved away", vocab_multiple=8)), run, tmp_path / "out")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_export_writes_the_model_of_a_gguf_file_as_a_folder(tmp_path, kind):
    """What transformers reads from the folder is what the file holds; the run doesn't need the file any more."""
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    original = train_tokenizer()
    tensors = draw_tensors("qwen2", original.get_vocab_size())
    source = write_gguf(tmp_path / "model.gguf", tensors, kind=kind, values=tokenizer_values(original, "qwen2"))
    expected = {name: GgufTensors(source).get_slice(name)[(slice(None),) * x.ndim] for name, x in tensors.items()}
    config = Config(old_logp="sampler", model=ModelConfig(path=str(source), vocab_multiple=8))
    weights = hf.load_weights(source, abstract_weights(hf.resolve_model(config.model, source), one_device()))
    run = write_run(tmp_path / "run", config, {1: weights}, source)
    source.unlink()
    export(config, run, tmp_path / "out")
    found = stored_tensors(tmp_path / "out")
    assert found.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == load_tokenizer(tmp_path / "out").encode(text)


def test_export_names_another_dtype_in_config_json(tuned, tmp_path):
    run, source = tuned
    config = Config(old_logp="sampler", model=ModelConfig(path=str(source), vocab_multiple=8))
    export(config, run, tmp_path / "out", dtype="float32")
    assert hf.read_dtype(tmp_path / "out") == "float32"
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    assert after == before | {"dtype": "float32"}
    found, exact = stored_tensors(tmp_path / "out"), stored_tensors(source)
    assert found.keys() == exact.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, exact[name].astype(np.float32))


def test_export_starts_no_process(run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an export starts no process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(pool.Pool, "__init__", refuse)
    export(CONFIG, run, tmp_path / "out")
    assert stored_tensors(tmp_path / "out")


def test_export_without_biases(tmp_path):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, qkv_bias=False))
    weights = lively_weights(dataclasses.replace(MODEL, qkv_bias=False))
    export(config, write_run(tmp_path / "run", config, {1: weights}), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "llama"
    assert not any("bias" in name for name in stored_tensors(tmp_path / "out"))


def test_export_refuses_bad_input(run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="--step=3: .* no such checkpoint; use one of 2, 5"):
        export(CONFIG, run, out, 3)
    with pytest.raises(FileNotFoundError, match="nowhere: no complete checkpoint"):
        export(CONFIG, tmp_path / "nowhere", out)
    with pytest.raises(ValueError, match="--dtype=int8: use one of float32, bfloat16, float16"):
        export(CONFIG, run, out, dtype="int8")
    for inside in ("weights", "checkpoints/7", "model/../model/deeper/out"):
        with pytest.raises(ValueError, match=f"{inside}: a run has a folder of this name for itself"):
            export(CONFIG, run, run / inside)
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / "precious").write_text("")
    for taken in (out, out / "precious"):
        with pytest.raises(ValueError, match="exists and is not empty"):
            export(CONFIG, run, taken)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious"]


def test_export_refuses_a_run_without_model_settings(run, tmp_path):
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(FileNotFoundError, match="no settings and tokenizer in its folder 'model'"):
        export(CONFIG, tmp_path, tmp_path / "out")


def test_export_leaves_nothing_after_a_failure(run, tmp_path, monkeypatch):
    def fail(folder, *_, **__):
        assert list(folder.iterdir())
        raise OSError("disk full")

    monkeypatch.setattr(export_module.hf, "save_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        export(CONFIG, run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def command(*words, platform="no_such_platform"):
    return commands.run("nft_jax.export", *words, JAX_PLATFORMS=platform)


def test_export_command_uses_the_config_of_the_run_and_no_accelerator(run, tmp_path):
    done = command(f"--workdir={run}", f"--output={tmp_path / 'out'}", "--step=2", "--dtype=float16")
    assert done.returncode == 0, done.stderr
    assert "step 2" in done.stdout
    assert hf.read_dtype(tmp_path / "out") == "float16"
    expected = lively_weights(MODEL, seed=2)["head"][:VOCABULARY].astype(np.float16)
    np.testing.assert_array_equal(stored_tensors(tmp_path / "out")["lm_head.weight"], expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--output=FOLDER is needed"),
        (
            ["--output={folder}/out", "--dtype=float8"],
            "flag --dtype=float8: value should be one of <float32|bfloat16|float16>",
        ),
        (["--output={folder}/out", "--step=7"], "--step=7: {run} has no such checkpoint; use one of 2, 5"),
    ],
)
def test_export_command_refuses_bad_flags_with_code_2(run, tmp_path, words, message):
    done = command(f"--workdir={run}", *(word.format(folder=tmp_path) for word in words))
    assert done.returncode == 2
    assert f"\nerror: {message.format(run=run)}" in f"\n{done.stderr}", done.stderr
    assert "Traceback" not in done.stderr


def test_export_help_lists_the_flags():
    done = command("--help")
    assert "python -m nft_jax.export --workdir=" in done.stdout
    assert all(f"--{name}:" in done.stdout for name in ("workdir", "output", "step", "dtype"))
