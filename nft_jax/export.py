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
from nft_jax.experiment import with_shape
from nft_jax.files import atomically
from nft_jax.models import hf, transformer
from nft_jax.run.best import chosen_step
from nft_jax.run.checkpoint import Checkpoints


def export(config: Config, workdir: Path, output: Path, step: int | None = None, dtype: str | None = None) -> str:
    """Writes the weights after `step` (None: the newest checkpoint) to the folder `output`; returns what it wrote.

    `dtype` is by default that of the model folder which the run started from, else float32. The folder appears when it
    is complete, or not at all.

    Raises:
      FileNotFoundError: when the run has no such checkpoint.
      ValueError: when `output` isn't empty, or for an unknown dtype.
    """
    settings = workdir / "model"
    with Checkpoints(workdir) as checkpoints:
        step = _checked(workdir, output, checkpoints.steps, step)
        dtype = dtype or hf.read_dtype(settings)
        if dtype not in hf.DTYPES:
            raise ValueError(f"--dtype={dtype}: use one of {', '.join(hf.DTYPES)}")
        vocabulary = hf.read_model_settings(settings)["vocab"]
        shapes = _shapes(config, settings, vocabulary)
        weights = checkpoints.restore_weights(step, shapes)
    with atomically(output.resolve()) as folder:
        shutil.copytree(settings, folder)
        hf.write_dtype(folder, dtype)
        count = hf.save_weights(folder, weights, vocab=vocabulary, dtype=dtype)
    size = sum(path.stat().st_size for path in output.iterdir())
    return (
        f"{output}: step {step} of {workdir}, {count:,} weights in {dtype}, {size / 2**20:,.1f} MiB\n"
        f'load it: transformers.AutoModelForCausalLM.from_pretrained("{output}")'
    )


def _checked(workdir: Path, output: Path, steps: list[int], step: int | None) -> int:
    """The step to export, if all is as it must be."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output={output} exists and is not empty; give a folder that doesn't exist yet")
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


def _shapes(config: Config, settings: Path, vocabulary: int) -> Any:
    """The weights as they lie in the checkpoint; to be read whole into the host's memory."""
    path = str(settings) if config.model.path else ""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))
    _, shapes, _ = transformer.abstract_model(with_shape(config, vocabulary).model, vocabulary)
    host = SingleDeviceSharding(jax.devices("cpu")[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=host), shapes)


def main(config: Config, workdir: Path) -> None:
    """Exports what the flags say."""
    if not flags.FLAGS.output:
        raise ValueError("--output=FOLDER is needed: where the model goes, e.g. --output=exported/tiny")
    # The host's memory is where all of it happens, and the accelerators may be busy with that very run.
    jax.config.update("jax_platforms", "cpu")
    step = chosen_step(flags.FLAGS.step, workdir)
    print(export(config, workdir, Path(flags.FLAGS.output), step, flags.FLAGS.dtype))


def _define_flags() -> None:
    """Not at import, where flags of the same names of two programs would clash."""
    flags.DEFINE_string("output", None, "Folder to write; it must not exist yet, or be empty.")
    flags.DEFINE_string("step", None, "Step whose checkpoint is exported, or 'best'; the newest one by default.")
    flags.DEFINE_enum("dtype", None, hf.DTYPES, "Of the weights; by default as in the model that the run started from.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
