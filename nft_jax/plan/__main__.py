"""Whether a step fits devices, and what it costs there: python -m nft_jax.plan --config=NAME --topology=v5p:4x4x4

Compiles the very step that trains, for TPU slices that nobody holds (`pip install libtpu` is enough: no TPU is needed),
or, without --topology, for the devices that are here. Nothing is run; where the config gives the model's shape, no data
and no weights are read either. Prints what the compiler found (memory, transfers) apart from what
is estimated from the chip's data sheet (seconds), under assumptions that --assume changes:

    --assume=answer=900,mixed=0.4    mean tokens of an answer, share of groups that train; the output names the others

--slices=N takes several slices (then config.mesh.replica=N, or a multiple). --search finds how many slots and rows a
micro-batch fit, in some more compilations. --json=FILE, or --workdir=DIR (then DIR/plan.json), keeps it all.
"""

import json
from pathlib import Path

import jax
from absl import flags

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.data.random_prompts import random_dataset
from nft_jax.plan.page import as_json, described
from nft_jax.plan.planner import fill_model_shape, plan_step, search_plan
from nft_jax.plan.program import TooLarge
from nft_jax.plan.topology import topology

TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slice such as v5e:8x8; empty: the devices that are here.")
SLICES = flags.DEFINE_integer("slices", 1, "Slices of that topology.")
SEARCH = flags.DEFINE_bool("search", False, "Find how many slots, and rows a micro-batch, fit.")
ASSUME = flags.DEFINE_string("assume", "", "NAME=VALUE,…: what the estimate assumes.")
PROMPTS = flags.DEFINE_integer("prompts", 17_000, "Prompts in the table that lies on each device.")
JSON = flags.DEFINE_string("json", "", "File for all figures.")


def main(config: Config, workdir: Path | None) -> None:
    """Compiles, prints, and keeps the figures."""
    devices = topology(TOPOLOGY.value, SLICES.value) if TOPOLOGY.value else jax.devices()
    config = fill_model_shape(config)
    dataset = random_dataset(config, 1, PROMPTS.value) if config.model.vocab else None
    plan = search_plan if SEARCH.value else plan_step
    try:
        found = plan(config, devices, dataset, ASSUME.value)
    except TooLarge as error:
        raise ValueError(
            f"the step does not fit: it {error}\ntake fewer rollout.slots, more devices, mesh.sequence_parallel=true, "
            f"packing.rows_per_micro_batch=1, optimizer.offload=true or model.remat='full'; --search finds the slots"
        ) from error
    print(described(found, TOPOLOGY.value))
    path = Path(JSON.value) if JSON.value else workdir / "plan.json" if workdir else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(as_json(found, TOPOLOGY.value), indent=2) + "\n")
        print(f"all figures: {path}")


if __name__ == "__main__":
    cli.run(main, __doc__, needs_workdir=False)
