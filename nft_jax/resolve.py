"""Resolving: fills in what a loaded config leaves to the model folder, the tokenizer and the mesh, and checks it."""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from nft_jax.config import Config, replace_value, value_of
from nft_jax.config.sizes import row_tokens, rows_per_micro_batch
from nft_jax.data.named_models import find_model
from nft_jax.losses import Loss
from nft_jax.models import attention_backends, hf
from nft_jax.models.experts import EXPERT_WEIGHTS
from nft_jax.models.windows import drop_wide_window
from nft_jax.names import quote
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import DATA, TENSOR, shard_count
from nft_jax.precision import fast_dtype
from nft_jax.rollout.engine import count_slots
from nft_jax.rounding import round_up
from nft_jax.update.minibatches import units_per_group


def resolve(config: Config, folder: Path, vocabulary: int, mesh: Mesh) -> Config:
    """Returns the config as it is run: every size filled in, and checked against the data and the devices.

    Args:
      folder: The workdir, which may hold a copy of the model folder's settings.
      vocabulary: Number of the tokenizer's ids.
      mesh: The mesh that `config.mesh` describes.

    Raises:
      FileNotFoundError: When the model folder does not exist.
      ValueError: When sizes, devices, attention and packing do not fit together; the message names values that would.
    """
    config = resolve_precision(resolve_model(config, folder, vocabulary), mesh.devices.flat[0])
    check_tokens(config)
    _check_experts(config)
    loss = config.resolve_loss()
    layout.check_host_memory(mesh, _offloads(config))
    config = _resolve_packing(config, attention_backends.select_attention(config.model, mesh))
    check_sizes(config, loss, mesh)
    each = units_per_group(loss.unit, config.answers_per_prompt)
    units = config.prompts_per_step // config.updates_per_step * each // shard_count(mesh)
    rows = rows_per_micro_batch(config, loss.unit, config.prompts_are_shared, units)
    config = replace_value(config, "packing.rows_per_micro_batch", rows)
    if config.rollout.partial:
        # They decide which weights draw a token, so that a run must keep them.
        answers = config.candidates_per_round * config.answers_per_prompt // shard_count(mesh)
        config = replace_value(config, "rollout.slots", count_slots(config.rollout, answers))
        config = replace_value(config, "mesh.data", mesh.shape[DATA])
    return config


def resolve_model(config: Config, folder: Path, vocabulary: int) -> Config:
    """Returns the config with the model's sizes, from its folder if it names one, and the rows of the embedding.

    Raises:
      FileNotFoundError: When the model folder does not exist.
      ValueError: When the embedding has fewer rows than the tokenizer has ids.
    """
    config = locate(config, folder)
    model = config.model
    if model.path:
        rows = hf.read_model_settings(Path(model.path))["vocab"]
        if rows < vocabulary:
            raise ValueError(
                f"the model in {model.path} has {rows} vocabulary rows, the tokenizer {config.data.tokenizer} has "
                f"{vocabulary} ids: they do not belong together; name the model's own tokenizer by "
                f"config.data.tokenizer"
            )
        tokens = config.data.max_prompt_tokens + config.rollout.max_answer_tokens
        model = drop_wide_window(hf.resolve_model(model, Path(model.path)), tokens)
    rows = model.vocab or round_up(vocabulary, model.vocab_multiple)
    if rows < vocabulary:
        raise ValueError(f"config.model.vocab={rows} is smaller than the tokenizer's {vocabulary} ids; use 0 to fit it")
    return dataclasses.replace(config, model=dataclasses.replace(model, vocab=rows))


def locate(config: Config, folder: Path) -> Config:
    """Returns the config with the paths of the model's settings and tokenizer, if it names a model.

    A run keeps a copy of these files in its workdir, and continues with the copy after the model is gone.

    Raises:
      FileNotFoundError, ConnectionError: As `find_model`.
      ValueError: As `find_model`, or when the model is of an unknown kind.
    """
    if not config.model.path:
        return config
    # Adapters need the weights of their model, which the workdir does not keep.
    kept = Path(config.model.path) if config.lora.rank else folder / "model"
    path = str(find_model(config.model.path, kept))
    hf.read_model_settings(Path(path))
    model = dataclasses.replace(config.model, path=path)
    data = dataclasses.replace(config.data, tokenizer=config.data.tokenizer or path)
    return dataclasses.replace(config, model=model, data=data)


def use_kept_settings(config: Config, folder: Path) -> Config:
    """Returns the config of a run with the model's settings and tokenizer that its workdir keeps, if it names a model.

    The model's folder may hold another model by now; the weights of the run's checkpoints belong to the kept settings.
    """
    kept = folder / "model"
    if not config.model.path or not (kept / "config.json").is_file():
        return config
    return locate(replace_value(config, "model.path", str(kept)), folder)


def resolve_precision(config: Config, device: jax.Device) -> Config:
    """Returns the config with the number format that the device computes in, where the config leaves it open."""
    dtype, precision = config.model.dtype, config.model.precision
    dtype = fast_dtype(device) if dtype == "auto" else dtype
    precision = ("highest" if dtype == "float32" else "default") if precision == "auto" else precision
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype, precision=precision))


def check_tokens(config: Config) -> None:
    """Checks that the model folder's model can read a whole prompt and its answer.

    Raises:
      ValueError: When prompt and answer exceed its positions.
    """
    limit = hf.read_token_limit(Path(config.model.path)) if config.model.path else None
    P, T = config.data.max_prompt_tokens, config.rollout.max_answer_tokens
    if limit is None or limit >= P + T:
        return
    raise ValueError(
        f"config.data.max_prompt_tokens={P} + config.rollout.max_answer_tokens={T} = {P + T} tokens exceed "
        f"max_position_embeddings={limit} of the model in {config.model.path}: it was trained on no longer texts; if "
        f"it can read them, raise max_position_embeddings in its config.json. Use --config.rollout.max_answer_tokens="
        f"{max(limit - P, 1)} or less, or shorter prompts"
    )


def _check_experts(config: Config) -> None:
    """Checks that nothing is asked of a model with experts that only other models can do.

    Raises:
      ValueError: When adapters or int8 weights are asked of experts.
    """
    if not config.model.experts:
        return
    faults, targets = [], [name for name in config.lora.target_names if name in EXPERT_WEIGHTS]
    if config.lora.rank and targets:
        others = ", ".join(name for name in config.lora.target_names if name not in EXPERT_WEIGHTS)
        faults.append(
            f"config.lora.targets: {', '.join(targets)} are weights of experts, which get no adapters; use "
            f"{quote(others or 'query, key, value, output')}"
        )
    for name in ("rollout.weights", "lora.base"):
        if value_of(config, name) == "int8":
            faults.append(f"config.{name}='int8': weights of experts are not rounded; leave it out")
    if faults:
        raise ValueError(f"the model has {config.model.experts} experts a layer:\n  " + "\n  ".join(faults))


def check_sizes(config: Config, loss: Loss, mesh: Mesh) -> None:
    """Checks that answers, units, rows and worked examples divide over the mesh.

    Raises:
      ValueError: For all sizes that do not, with sizes that would.
    """
    faults = [*_rollout_faults(config, mesh), *_update_faults(config, loss.unit, mesh)]
    faults += _warm_start_faults(config, mesh)
    if config.model.kv_heads % mesh.shape[TENSOR]:
        faults.append(
            f"{config.model.kv_heads} key-value heads are not divisible by mesh.tensor={mesh.shape[TENSOR]}; "
            f"use a tensor axis that divides them"
        )
    if faults:
        raise ValueError("the step does not divide over the mesh:\n  " + "\n  ".join(faults))


def _rollout_faults(config: Config, mesh: Mesh) -> list[str]:
    C, K, shards, faults = config.candidates_per_round, config.answers_per_prompt, shard_count(mesh), []
    if C % shards:
        faults.append(
            f"{C} candidate prompts a round are not divisible by {shards} data shards; use {_near(C, shards)}"
        )
    if C * K % mesh.size:
        faults.append(
            f"{C} prompts × {K} answers = {C * K} answers are not divisible by {mesh.size} devices, which grade them"
        )
    return faults


def _near(size: int, shards: int) -> str:
    """Returns the multiples of `shards` that are next to a size."""
    below = size - size % shards
    return f"{below} or {below + shards}" if below else f"{shards}"


def _warm_start_faults(config: Config, mesh: Mesh) -> list[str]:
    examples, shards = config.warm_start.examples_per_update, shard_count(mesh)
    if not config.warm_start.steps or config.base or examples % shards == 0:
        return []
    return [
        f"config.warm_start.examples_per_update={examples} is not divisible by {shards} data shards; use "
        f"{_near(examples, shards)}"
    ]


def _update_faults(config: Config, unit: str, mesh: Mesh) -> list[str]:
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    shards, T, faults = shard_count(mesh), mesh.shape[TENSOR], []
    each = units_per_group(unit, K)
    units = Q // U * each
    if units % shards or not units:
        faults.append(
            f"an update's {Q // U} prompts × {each} {unit}s = {units} units are not divisible by {shards} data "
            f"shards; change prompts_per_step={Q}, answers_per_prompt={K} or updates_per_step={U}"
        )
    return faults + [
        f"config.mesh.sequence_parallel=true splits rows of {setting}={tokens} tokens over mesh.tensor={T}, which does "
        f"not divide them; use {round_up(tokens, T)}, or sequence_parallel=false"
        for setting, tokens in _split_row_tokens(config, unit).items()
        if tokens % T
    ]


def _split_row_tokens(config: Config, unit: str) -> dict[str, int]:
    """Returns the lengths of the rows whose tokens are split over `tensor`, by the setting that determines each."""
    if not config.mesh.sequence_parallel:
        return {}
    shared = config.prompts_are_shared
    rows = {"config.packing.row_tokens": row_tokens(config, unit, shared)}
    return rows | ({"config.data.max_prompt_tokens": config.data.max_prompt_tokens} if shared else {})


def _resolve_packing(config: Config, attention: attention_backends.AttentionBackend) -> Config:
    """Decides whether rows share prompts; with attention kernels only where the config asks for it.

    Raises:
      ValueError: When the config demands shared prompts with a kernel that doesn't take them.
    """
    choice = config.packing.share_prompts
    if choice == "yes" and attention.takes_no_prompts:
        raise ValueError(
            f"config.packing.share_prompts='yes': attention by {attention.name} needs rows that hold their prompts "
            f"({attention.takes_no_prompts}); use 'auto' or 'no', or config.model.attention='xla'"
        )
    if choice == "auto" and attention.name != attention_backends.XLA.name:
        choice = "no"
    return dataclasses.replace(config, packing=dataclasses.replace(config.packing, share_prompts=choice))


def _offloads(config: Config) -> dict[str, bool]:
    """Returns the settings that keep arrays in the host's memory, and whether each is chosen."""
    return {
        "config.optimizer.offload=true": config.optimizer.offload,
        "config.warm_start.optimizer.offload=true": config.warm_start.optimizer.offload,
        "config.model.remat='offload'": config.model.remat == "offload",
    }
