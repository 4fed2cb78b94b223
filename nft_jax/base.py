"""The weights that a run starts from, and those that its adapters were trained on.

A run with adapters saves the adapters alone, with a digest of the frozen weights beside them. Whatever reads them, a
resumed run too, loads the frozen weights from where the run had them, and compares the digest.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nft_jax.config import Config, LoraConfig
from nft_jax.data.named_models import find_model
from nft_jax.models import hf
from nft_jax.models.lora import join_weights, merge_adapters
from nft_jax.models.sharded import ShardedModel, build_model
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.fingerprint import FINGERPRINT_FILE, read_fingerprint_file, weights_digest
from nft_jax.run.weights import has_weights, load_weights
from nft_jax.run.workdir import is_kept_model


class Source(NamedTuple):
    """Where weights come from.

    Attributes:
      base: Workdir of a run, or "".
      path: Model folder, or "": random weights of `seed`.
    """

    base: str
    path: str
    seed: int

    @classmethod
    def of(cls, config: Config) -> "Source":
        """Returns the source that a config names."""
        return cls(config.base, config.model.path, config.seed)

    def __str__(self) -> str:
        return self.base or self.path or f"random weights of seed {self.seed}"


def load_base(source: Source, model: ShardedModel) -> Any:
    """Loads weights without adapters, as the model freezes them; those of a run that trained adapters are merged.

    Raises:
      FileNotFoundError, ValueError: When they are not there, do not fit the model, or are not those that the adapters
        of `source.base` were trained on.
    """
    if source.base:
        return model.freeze_all(_load_run(remote_workdir.open_workdir(source.base, "config.base"), model))
    if source.path:
        path = find_model(source.path, kept=Path(source.path))
        if is_kept_model(path):
            raise FileNotFoundError(
                f"the weights before the first step are gone with the model that the run started from: {path} keeps "
                f"its settings and tokenizer only; give the model's new place by --config.model.path=FOLDER"
            )
        return hf.load_weights(path, model.abstract_base(), model.freeze)
    return model.freeze_all(model.random_base(source.seed))


def add_frozen(trained: Any, source: Source, model: ShardedModel, fingerprint: dict, where: Any) -> Any:
    """Returns all weights of a model: what a run has saved, and the frozen weights, loaded again, if it has some.

    Args:
      trained: As the run saved it.
      source: Where the run's weights came from.
      fingerprint: That of the run.
      where: The place of `trained`, for a message.

    Raises:
      FileNotFoundError, ValueError: As `load_base`; when the frozen weights have another digest than the run's.
    """
    if not model.lora.rank:
        return trained
    frozen = load_base(source, model)
    saved, digest = fingerprint.get("frozen"), weights_digest(frozen)
    if saved != digest:
        raise ValueError(
            f"{where} holds adapters of frozen weights with digest {saved}, but {source} has {digest} (in "
            f"{model.config.dtype}): give the weights that the run started from, by config.model.path or config.base"
        )
    return join_weights(trained, frozen)


def read_fingerprint(folder: Path) -> dict:
    """Returns the fingerprint beside the weights that `load_weights` reads from a folder; {} without one."""
    if has_weights(folder):
        path = folder / FINGERPRINT_FILE
        return read_fingerprint_file(path) if path.exists() else {}
    with Checkpoints(folder) as checkpoints:
        return {} if checkpoints.latest is None else checkpoints.read_run(checkpoints.latest)


def _load_run(folder: Path, model: ShardedModel) -> Any:
    """Loads the weights of a run without adapters, or merges its adapters into theirs."""
    fingerprint = read_fingerprint(folder)
    there = fingerprint.get("config", {})
    lora = LoraConfig(**there.get("lora", {}))
    if not lora.rank:
        return load_weights(folder, model.abstract_base())
    config = dataclasses.replace(model.config, dtype=there["model"]["dtype"])
    adapted = build_model(config, model.vocabulary, model.mesh, lora)
    trained = load_weights(folder, adapted.abstract_trained())
    source = Source(there["base"], there["model"]["path"], there["seed"])
    weights = add_frozen(trained, source, adapted, fingerprint, folder)

    def merge(weights):
        merged = merge_adapters(weights, lora.scale, "float32")
        return jax.tree.map(lambda x, like: x.astype(like.dtype), merged, model.base.shapes)

    return jax.jit(merge, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, model.abstract_base()))(weights)
