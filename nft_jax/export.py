r"""Writes the weights of a run as a Hugging Face model folder, which transformers, vLLM and others load.

python -m nft_jax.export --workdir=runs/tiny --output=exported/tiny
python -m nft_jax.export --workdir=runs/tiny --step=best --output=exported/tiny_best --dtype=bfloat16
python -m nft_jax.export --workdir=runs/lora --output=exported/lora              # adapters, merged into their base
python -m nft_jax.export --workdir=runs/lora --output=exported/peft --adapter    # adapters alone, for the package peft
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
from absl import flags

from nft_jax import cli
from nft_jax.base import Source, add_frozen
from nft_jax.config import Config
from nft_jax.data.named_models import NAMED_MODELS
from nft_jax.files import atomically, name_output
from nft_jax.models import hf
from nft_jax.models.lora import merge_adapters
from nft_jax.models.sharded import ShardedModel, build_model
from nft_jax.parallel.mesh import make_mesh
from nft_jax.resolve import resolve_model, resolve_precision
from nft_jax.run.best import resolve_step
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.inspection import FOLDERS


def export(
    config: Config,
    workdir: Path,
    output: Path,
    step: int | None = None,
    dtype: str | None = None,
    *,
    adapter: bool = False,
) -> str:
    """Writes the weights after a step as a model folder, which appears complete or not at all.

    Args:
      step: Step of the checkpoint; None: the newest.
      dtype: Dtype of the weights; None: that of the model folder that the run started from, else float32.
      adapter: Whether to write the adapters alone, as a folder for `peft`; else they are merged into their base.

    Returns:
      A description of what was written, for a person to read.

    Raises:
      FileNotFoundError: When the run has no such checkpoint.
      ValueError: When `output` is not empty, for an unknown dtype, for adapters where there are none or that belong
        to no model folder, and when their base is no longer what they were trained on.
    """
    settings = workdir / "model"
    if adapter and not config.lora.rank:
        raise ValueError("--adapter: this run trained all weights (config.lora.rank=0); export it without --adapter")
    with Checkpoints(workdir) as checkpoints:
        step = _choose_step(workdir, output, checkpoints.steps, step)
        dtype = dtype or hf.read_dtype(settings)
        if dtype not in hf.DTYPES:
            raise ValueError(f"--dtype={dtype}: use one of {', '.join(hf.DTYPES)}")
        vocabulary = hf.read_model_settings(settings)["vocab"]
        model = _host_model(config, settings, vocabulary)
        trained = checkpoints.restore_weights(step, model.abstract_trained())
        if adapter:
            return _export_adapters(config, trained, output, f"step {step} of {workdir}")
        weights = add_frozen(trained, Source.of(config), model, checkpoints.read_run(step), workdir)
        weights = merge_adapters(weights, config.lora.scale, "float32")
    with atomically(output.resolve()) as folder:
        shutil.copytree(settings, folder)
        hf.write_dtype(folder, dtype)
        count = hf.save_weights(folder, weights, vocab=vocabulary, dtype=dtype)
    size = sum(path.stat().st_size for path in output.iterdir())
    return (
        f"{output}: step {step} of {workdir}, {count:,} weights in {dtype}, {size / 2**20:,.1f} MiB\n"
        f'load it: transformers.AutoModelForCausalLM.from_pretrained("{output}")'
    )


def _export_adapters(config: Config, adapters: Any, output: Path, what: str) -> str:
    path = config.model.path
    if config.base or not path:
        raise ValueError(
            f"--adapter: the adapters belong to {Source.of(config)}, which is no model folder that peft could read; "
            f"export without --adapter: that merges them"
        )
    base = NAMED_MODELS[path].repository if path in NAMED_MODELS else str(Path(path).expanduser().resolve())
    with atomically(output.resolve()) as folder:
        folder.mkdir()
        count = hf.save_adapters(folder, adapters, config.lora, base)
    rounded = ", in int8 while they were trained: a merged export keeps that" if config.lora.base == "int8" else ""
    return (
        f"{output}: adapters of {what}, {count:,} weights in float32, of the base {base}{rounded}\n"
        f'load them: peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained("{base}"), '
        f'"{output}")'
    )


def _choose_step(workdir: Path, output: Path, steps: list[int], step: int | None) -> int:
    """Returns the step to export.

    Raises:
      FileNotFoundError: When the run lacks the checkpoint or the model's settings.
      ValueError: When `output` is not empty, or is a folder of the run's own.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output={output} exists and is not empty; give a folder that does not exist yet")
    own = [workdir.resolve() / name for name in FOLDERS]
    if any(folder in own for folder in (output.resolve(), *output.resolve().parents)):
        raise ValueError(f"--output={output}: a run has a folder of this name for itself; give another one")
    if not steps:
        raise FileNotFoundError(
            f"--workdir={workdir}: no complete checkpoint in it; give the workdir of a `python -m nft_jax.train` run"
        )
    if not (workdir / "model" / "config.json").is_file():
        raise FileNotFoundError(
            f"--workdir={workdir}: no settings and tokenizer in its folder 'model'; train writes them when it is "
            f"started, also to resume"
        )
    if step is not None and step not in steps:
        raise FileNotFoundError(
            f"--step={step}: {workdir} has no such checkpoint; use one of {', '.join(map(str, steps))}"
        )
    return steps[-1] if step is None else step


def _host_model(config: Config, settings: Path, vocabulary: int) -> ShardedModel:
    """Returns the run's model on one CPU device: all of an export happens in the host's memory."""
    path = str(settings) if config.model.path else ""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))
    device = jax.devices("cpu")[0]
    config = resolve_precision(resolve_model(config, settings.parent, vocabulary), device)
    model = dataclasses.replace(config.model, attention="xla")
    return build_model(model, vocabulary, make_mesh(1, 1, [device]), config.lora)


def main(config: Config, workdir: Path) -> None:
    """Exports, with the arguments given as flags."""
    if not flags.FLAGS.output:
        raise ValueError("--output=FOLDER is needed: where the model goes, e.g. --output=exported/tiny")
    # All of it happens in the host's memory, and the accelerators may be busy with the very run.
    jax.config.update("jax_platforms", "cpu")
    step = resolve_step(flags.FLAGS.step, workdir)
    given = flags.FLAGS
    print(export(config, workdir, name_output(given.output, "output"), step, given.dtype, adapter=given.adapter))


def _define_flags() -> None:
    """Defines the flags; not at import, because flags of the same name of two programs would clash."""
    flags.DEFINE_string("output", None, "Folder to write; it must not exist yet, or be empty.")
    flags.DEFINE_string("step", None, "Step whose checkpoint is exported, or 'best'; the newest one by default.")
    flags.DEFINE_enum(
        "dtype", None, hf.DTYPES, "Dtype of the weights; by default that of the model that the run started from."
    )
    flags.DEFINE_bool("adapter", False, "Write the adapters of a run alone, for the package peft, instead of merged.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
