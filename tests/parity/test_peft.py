"""Parity with peft: a run's exported adapters give its logits on transformers' model, and merge to its export."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.model_folders import stored_tensors
from helpers.parity_models import VOCABULARY, random_model
from helpers.small_parts import one_device
from nft_jax.config import Config, LoraConfig, ModelConfig
from nft_jax.export import export
from nft_jax.models import hf, transformer
from nft_jax.models.lora import split_weights
from nft_jax.models.sharded import build_model
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.fingerprint import weights_digest
from nft_jax.state import State
from nft_jax.types import Tokens

# peft asks transformers for a name that the latter deprecates.
pytestmark = [
    pytest.mark.parity,
    pytest.mark.usefixtures("torch"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
TOKEN_BT = np.random.default_rng(0).integers(0, VOCABULARY, (4, 17)).astype(np.int32)


class Trained:
    """A run on a random Qwen2 folder whose adapters change much, and its logits."""

    def __init__(self, folder, targets, base):
        random_model(folder / "base")
        self.base, self.workdir = folder / "base", folder / "run"
        path = ModelConfig(path=str(self.base), vocab_multiple=8)
        self.config = Config(old_logp="sampler", model=path, lora=LoraConfig(3, 7.0, targets, base))
        model = build_model(hf.resolve_model(path, self.base), VOCABULARY, one_device(), self.config.lora)
        start = model.start_adapters(hf.load_weights(self.base, model.abstract_base(), model.freeze), 0)
        self.adapters, frozen = split_weights(start)
        random = np.random.default_rng(1)
        for adapter in self.adapters["blocks"].values():
            adapter["b"] = jnp.asarray(random.normal(size=adapter["b"].shape), jnp.float32)
        shutil.copytree(self.base, self.workdir / "model", ignore=shutil.ignore_patterns("*.safetensors"))
        state = State(self.adapters, {"count": jnp.int32(0)}, jnp.int32(1), jnp.int32(0), None, None, frozen)
        with Checkpoints(self.workdir, keep=1) as checkpoints:
            checkpoints.save(1, state, {"frozen": weights_digest(frozen)})
            checkpoints.wait()
        position_BT = np.broadcast_to(np.arange(TOKEN_BT.shape[1], dtype=np.int32), TOKEN_BT.shape)
        tokens = Tokens(TOKEN_BT, np.zeros_like(TOKEN_BT), position_BT)
        self.logits = [self.run(model.graph, state.model_weights, tokens), self.run(model.base.graph, frozen, tokens)]

    def run(self, graph, weights, tokens):
        @jax.jit
        def logits(weights):
            with jax.default_matmul_precision("highest"):
                module = transformer.bind(graph, weights)
                return module.logits(module(tokens).reshape(TOKEN_BT.size, -1))

        return np.asarray(logits(weights))[:, :VOCABULARY]


@pytest.fixture(scope="module", params=["query, key, value, output, gate, up, down", "value, down"])
def trained(request, tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("peft"), request.param, "model")


def test_merged_export_of_an_int8_base_gives_transformers_the_same_logits(torch, peft, tmp_path):
    """It has the rounded numbers that were trained on; the adapters alone are those of the model as it was."""
    import transformers

    rounded = Trained(tmp_path, "value, down", "int8")
    export(rounded.config, rounded.workdir, tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(their_logits(torch, merged), rounded.logits[0], atol=2e-4)
    message = export(rounded.config, rounded.workdir, tmp_path / "adapter", adapter=True)
    assert "in int8 while they were trained: a merged export keeps that" in message
    base = transformers.AutoModelForCausalLM.from_pretrained(rounded.base)
    found = their_logits(torch, peft.PeftModel.from_pretrained(base, tmp_path / "adapter"))
    assert 1e-3 < np.abs(found - rounded.logits[0]).max() < 1


def their_logits(torch, model):
    with torch.no_grad():
        return model(torch.tensor(TOKEN_BT)).logits.reshape(-1, VOCABULARY).numpy()


def test_export_adapters_give_peft_the_same_logits(trained, torch, peft, tmp_path):
    import transformers

    message = export(trained.config, trained.workdir, tmp_path / "adapter", adapter=True)
    assert f'"{tmp_path / "adapter"}")' in message
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = transformers.AutoModelForCausalLM.from_pretrained(trained.base)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    ours, without = trained.logits
    assert np.abs(ours - without).max() > 1
    np.testing.assert_allclose(their_logits(torch, model), ours, atol=2e-4)
    # transformers alone finds the base by the path in the folder.
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    np.testing.assert_allclose(their_logits(torch, alone), ours, atol=2e-4)

    export(trained.config, trained.workdir, tmp_path / "merged")
    model.merge_and_unload().save_pretrained(tmp_path / "theirs")
    found, expected = stored_tensors(tmp_path / "merged"), stored_tensors(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-6, err_msg=name)


def test_export_refuses_adapters_that_belong_to_no_model_folder(trained, tmp_path):
    whole = Config(old_logp="sampler", model=trained.config.model)
    with pytest.raises(ValueError, match="this run trained all weights"):
        export(whole, trained.workdir, tmp_path / "out", adapter=True)
    based = dataclasses.replace(trained.config, base="runs/other")
    with pytest.raises(ValueError, match="the adapters belong to runs/other, which is no model folder"):
        export(based, trained.workdir, tmp_path / "out", adapter=True)


def test_export_refuses_another_base(trained, tmp_path):
    changed = tmp_path / "changed"
    random_model(changed, seed=1)
    config = Config(
        old_logp="sampler", model=ModelConfig(path=str(changed), vocab_multiple=8), lora=trained.config.lora
    )
    with pytest.raises(ValueError, match=f"holds adapters of frozen weights with digest .*, but {changed} has"):
        export(config, trained.workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
