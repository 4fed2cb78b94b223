r"""Writes the weights of a run as a Hugging Face model folder, which transformers, vLLM and others load.

python -m nft_jax.export --workdir=runs/tiny --output=exported/tiny
python -m nft_jax.export --workdir=runs/tiny --step=best --output=exported/tiny_best --dtype=bfloat16
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.sharding import SingleDeviceSharding

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.files import atomically
from nft_jax.models import hf, transformer
from nft_jax.resolve import resolve_model, resolve_precision
from nft_jax.run.best import resolve_step
from nft_jax.run.checkpoint import Checkpoints


def export(config: Config, workdir: Path, output: Path, step: int | None = None, dtype: str | None = None) -> str:
    """Writes the weights after a step as a model folder, which appears complete or not at all.

    Args:
      step: Step of the checkpoint; None: the newest.
      dtype: Dtype of the weights; None: that of the model folder that the run started from, else float32.

    Returns:
      A description of what was written, for a person to read.

    Raises:
      FileNotFoundError: When the run has no such checkpoint.
      ValueError: When `output` is not empty, or for an unknown dtype.
    """
    settings = workdir / "model"
    with Checkpoints(workdir) as checkpoints:
        step = _choose_step(workdir, output, checkpoints.steps, step)
        dtype = dtype or hf.read_dtype(settings)
        if dtype not in hf.DTYPES:
            raise ValueError(f"--dtype={dtype}: use one of {', '.join(hf.DTYPES)}")
        vocabulary = hf.read_model_settings(settings)["vocab"]
        weights = checkpoints.restore_weights(step, _abstract_weights(config, settings, vocabulary))
    with atomically(output.resolve()) as folder:
        shutil.copytree(settings, folder)
        hf.write_dtype(folder, dtype)
        count = hf.save_weights(folder, weights, vocab=vocabulary, dtype=dtype)
    size = sum(path.stat().st_size for path in output.iterdir())
    return (
        f"{output}: step {step} of {workdir}, {count:,} weights in {dtype}, {size / 2**20:,.1f} MiB\n"
        f'load it: transformers.AutoModelForCausalLM.from_pretrained("{output}")'
    )


def _choose_step(workdir: Path, output: Path, steps: list[int], step: int | None) -> int:
    """Returns the step to export.

    Raises:
      FileNotFoundError: When the run lacks the checkpoint or the model's settings.
      ValueError: When `output` is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output={output} exists and is not empty; give a folder that does not exist yet")
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


def _abstract_weights(config: Config, settings: Path, vocabulary: int) -> Any:
    """Returns the shapes of the checkpoint's weights, with the layout to read each whole into the host's memory."""
    path = str(settings) if config.model.path else ""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))
    device = jax.devices("cpu")[0]
    config = resolve_precision(resolve_model(config, settings.parent, vocabulary), device)
    _, shapes, _ = transformer.abstract_model(config.model, vocabulary)
    host = SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=host), shapes)


def main(config: Config, workdir: Path) -> None:
    """Exports, with the arguments given as flags."""
    if not flags.FLAGS.output:
        raise ValueError("--output=FOLDER is needed: where the model goes, e.g. --output=exported/tiny")
    # All of it happens in the host's memory, and the accelerators may be busy with the very run.
    jax.config.update("jax_platforms", "cpu")
    step = resolve_step(flags.FLAGS.step, workdir)
    print(export(config, workdir, Path(flags.FLAGS.output), step, flags.FLAGS.dtype))


def _define_flags() -> None:
    """Defines the flags; not at import, because flags of the same name of two programs would clash."""
    flags.DEFINE_string("output", None, "Folder to write; it must not exist yet, or be empty.")
    flags.DEFINE_string("step", None, "Step whose checkpoint is exported, or 'best'; the newest one by default.")
    flags.DEFINE_enum(
        "dtype", None, hf.DTYPES, "Dtype of the weights; by default that of the model that the run started from."
    )


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
