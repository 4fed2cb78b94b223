"""One of several processes that run the same training steps and write the results.

python steps_of_several.py FOLDER OUTPUT DATA TENSOR: process 0 writes OUTPUT.npz in FOLDER, which holds every
answer, the first update's gradient, and a digest of the weights after each step.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np

from helpers.experiments import Program, small
from nft_jax.processes import distributed
from nft_jax.run.fingerprint import weights_digest

STEPS = 3
# Appends what it grades to a file that is named after the process of the run. It waits while "run" has as many lines as
# the file "hold" says: however late a test looks, the run is no further.
GRADER = """
import contextlib, os, time, zlib
from pathlib import Path

HERE = Path(__file__).parent

def is_held():
    with contextlib.suppress(FileNotFoundError):
        return int((HERE / "hold").read_text()) <= (HERE / "run" / "metrics.jsonl").read_text().count("\\n")

def coin(response, answer):
    time.sleep(0.005)
    while is_held():
        time.sleep(0.01)
    with open(HERE / f"graded_{os.getppid()}_{os.getpid()}", "a") as out:
        out.write(repr(response) + "\\n")
    return zlib.crc32(response.encode()) % 2 == 0
"""
MODULE = "grader_that_notes"


def main(folder: Path, output: str, data: int, tensor: int) -> None:
    distributed.start(distributed.read_launch(dict.fromkeys(distributed.VARIABLES), os.environ), wait_seconds=60)
    mesh = {"mesh__data": data, "mesh__tensor": tensor}
    config = small(verify__grader=f"{MODULE}:coin", selection__max_rounds=1, verify__workers=1, **mesh)
    program, found = Program(config, folder / output), {}
    for step in range(STEPS):
        program.state, record = program.compiled(program.state, program.prompts)
        groups = distributed.gather(record.last)
        found |= {f"{name}_{step}": value for name, value in groups._asdict().items() if value is not None}
        found[f"digest_{step}"] = np.array(weights_digest(program.state.weights))
        if step == 0:
            gradient = distributed.gather(program.state.optimizer_state[1])
            found |= {
                f"gradient{jax.tree_util.keystr(path)}": value
                for path, value in jax.tree_util.tree_leaves_with_path(gradient)
            }
    if jax.process_index() == 0:
        np.savez(folder / f"{output}.npz", **found)
    program.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
