"""Tells whether a step fits some devices, and estimates its time there.

    python -m nft_jax.plan --config=NAME --topology=v5p:4x4x4
    python -m nft_jax.plan --config=NAME --topology=h100:8

Compiles the step that trains, for TPU slices (install the extra `[tpu]`; no TPU is needed) or GPUs (`[cuda12]`; no GPU
is needed), or without --topology for the devices of this machine. Nothing is run. If the config states the model's
shape, no data and no weights are read either. It prints the compiler's facts (memory, transfers), and apart from them
what the chip's data sheet lets one estimate (seconds), with assumptions that --assume changes:

    --assume=answer=900,mixed=0.4    mean tokens of an answer, share of groups that train; the output lists the others

--slices=N takes several slices; then set config.mesh.replica=N, or a multiple. --search compiles several times to find
the largest numbers of slots and of rows a micro-batch. --json=FILE, or --workdir=DIR (then DIR/plan.json), keeps all
figures.
"""

from pathlib import Path

import jax
from absl import flags

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.data.random_prompts import random_dataset
from nft_jax.plan.page import as_json, format_page
from nft_jax.plan.planner import fill_model_shape, plan_step, search_plan
from nft_jax.plan.program import TooLarge
from nft_jax.plan.topology import find_devices
from nft_jax.run.workdir import Workdir


def main(config: Config, workdir: Path | None) -> None:
    """Compiles, prints, and keeps the figures."""
    given = flags.FLAGS
    if given.slices > 1 and not given.topology:
        raise ValueError(f"--slices={given.slices}: name the slice by --topology, such as --topology=v5e:8x8")
    if given.json and Path(given.json).is_dir():
        raise ValueError(f"--json={given.json} is a folder; name a file")
    devices = find_devices(given.topology, given.slices) if given.topology else jax.devices()
    config = fill_model_shape(config)
    dataset = random_dataset(config, 1, given.prompts) if config.model.vocab else None
    make_plan = search_plan if given.search else plan_step
    try:
        plan = make_plan(config, devices, dataset, given.assume)
    except TooLarge as error:
        raise ValueError(
            f"the step does not fit: it {error}\nuse fewer rollout.slots, more devices, mesh.sequence_parallel=true, "
            f"packing.rows_per_micro_batch=1, optimizer.offload=true or model.remat='full'; --search finds the slots"
        ) from error
    print(format_page(plan, given.topology))
    path = Path(given.json) if given.json else workdir / "plan.json" if workdir else None
    if path is not None:
        Workdir(path.parent).write_json(path.name, as_json(plan, given.topology))
        print(f"all figures: {path}")


def _define_flags() -> None:
    flags.DEFINE_string(
        "topology", "", "TPU slice such as v5e:8x8, or GPUs such as h100:8; by default the devices of this machine."
    )
    flags.DEFINE_integer("slices", 1, "Number of slices of that topology.", lower_bound=1)
    flags.DEFINE_bool("search", False, "Find the largest numbers of slots, and of rows a micro-batch.")
    flags.DEFINE_string("assume", "", "NAME=VALUE,…: assumptions of the estimate.")
    flags.DEFINE_integer("prompts", 17_000, "Prompts in the table that each device holds.", lower_bound=1)
    flags.DEFINE_string("json", "", "File for all figures.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__, needs_workdir=False)
