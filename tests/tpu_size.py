"""The step at the size of the official 7B run, compiled for a TPU slice that nobody holds (libtpu's compiler suffices).

    python tests/tpu_size.py [--topology=v5e:8x8] [--data=16] [--tensor=4] [--slots=128] [--config.section.field=value]

512 prompts × 16 answers of up to 512 + 3584 tokens, 16 updates (arXiv 2505.18116), the shape of Qwen2.5-Math-7B. Prints
what each chip holds; a step too large for the chip ends with the compiler's own account of it. Takes minutes.
"""

import argparse
import tempfile
import time
from pathlib import Path

from topologies import compiled_step, topology

from nft_jax.config import default, load
from nft_jax.timing.workload import random_data

SHAPE = {"vocab": 152064, "layers": 28, "width": 3584, "heads": 28, "kv_heads": 4, "head_size": 128, "mlp_width": 18944}


def official(given: argparse.Namespace, changes: list[str]):
    """The recipe as a config of ours, with `--config.section.field=value` changed."""
    config = default()
    config.prompts_per_step, config.answers_per_prompt, config.updates_per_step = 512, 16, 16
    config.data.prompt_limit, config.rollout.answer_limit = 512, 3584
    config.model.update(SHAPE | {"tied_embedding": False, "dtype": "bfloat16", "precision": "default"})
    config.rollout.slots = given.slots
    config.packing.row_tokens, config.packing.rows_per_micro_batch, config.packing.logp_chunk = 4096, 1, 512
    config.mesh.data, config.mesh.tensor = given.data, given.tensor
    for change in changes:
        name, value = change.removeprefix("--config.").split("=", 1)
        section, _, field = name.rpartition(".")
        place = config[section] if section else config
        place[field] = type(place[field])(value)
    return load(config)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:8x8")
    for name, value in {"data": 16, "tensor": 4, "slots": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given, changes = parser.parse_known_args()
    config = official(given, changes)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        experiment, compiled = compiled_step(config, Path(folder), topology(given.topology), random_data(config, 1))
    memory = compiled.memory_analysis()
    gib = {name: getattr(memory, f"{name}_size_in_bytes") / 2**30 for name in ("argument", "temp")}
    slots = experiment.engine.slots(config.candidates_per_round * config.answers_per_prompt // given.data)
    print(
        f"{given.topology}, data {given.data} × tensor {given.tensor}, {slots} slots a shard, attention "
        f"{experiment.attention.name}: {gib['argument']:.2f} + {gib['temp']:.2f} GiB a chip, peak "
        f"{memory.peak_memory_in_bytes / 2**30:.2f}; {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
