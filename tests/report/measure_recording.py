"""What the page's tokens cost a run: steps that record some in turn with steps that do not, in one process.

    python tests/report/measure_recording.py [PAIRS]

The experiment is `--config=tiny` from drawn weights, with a coin as the grader, so that its groups train. It prints
the ratio of each pair of steps, on the clock and in CPU seconds of this process, and what saving a step costs beside.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.experiments import Program
from nft_jax import config_files
from nft_jax.config import load
from nft_jax.files import json_text
from nft_jax.run.rollouts import TokenRecord, describe_groups
from nft_jax.update.token_scores import compile_scores


def measure(work) -> tuple[float, float]:
    """Seconds on the clock and of the CPU."""
    began = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return time.perf_counter() - began[0], time.process_time() - began[1]


def take_step(program: Program) -> None:
    """Takes a step as the trainer does."""
    program.state, program.record = program.compiled(program.state, program.prompts)
    return program.record


def save_step(program: Program, scorer: jax.stages.Compiled) -> None:
    """Does what the trainer does with a step that is saved."""
    record, grader, table = program.record, program.step.grader, program.experiment.dataset.tables["train"]
    state = program.state
    after = scorer(state.weights, state.frozen, program.prompts, record.last, record.watched.place_Q)
    after, record, findings = jax.device_get(after), jax.device_get(record), grader.take_findings()
    tokens = TokenRecord(record.watched, after, False)
    groups = describe_groups(record.last, table, program.experiment.tokenizer, tokens, findings)
    Path(tempfile.gettempdir(), "rollouts.jsonl").write_text("".join(map(json_text, groups)), encoding="utf-8")


def main() -> None:
    """Prints the ratios."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        programs, changed = [], config_files.config("tiny")
        changed.verify.grader, changed.warm_start.steps, changed.mesh.data = "nft_jax.verify.coin:coin", 0, 1
        for changed.record.token_prompts in (4, 0):
            programs.append(Program(load(changed), Path(folder)))
        recording, plain = programs
        recording.step.grader.take_findings()
        updater = recording.experiment.step(recording.optimizer).updater
        scorer = compile_scores(updater, recording.compiled, recording.state, recording.prompts)
        for program in programs:
            take_step(program)  # the first one is slower
        rows, saved = [], []
        for pair in range(pairs):
            order = programs if pair % 2 else programs[::-1]
            for program in programs:  # the same step of the same state, so that both do the same work
                jax.block_until_ready(program.start())
            times = {id(program): measure(lambda program=program: take_step(program)) for program in order}
            rows.append([one / other for one, other in zip(times[id(recording)], times[id(plain)], strict=True)])
            cost = measure(lambda: save_step(recording, scorer))
            saved.append([part / whole for part, whole in zip(cost, times[id(plain)], strict=True)])
            ratios = f"clock {rows[-1][0]:.3f}, CPU {rows[-1][1]:.3f}; saving {saved[-1][1]:.3f}"
            print(f"pair {pair + 1}: {ratios}", flush=True)
        for name, values in (("a step that records / one that does not", rows), ("saving a step / a step", saved)):
            clock, cpu = (statistics.median(column) for column in zip(*values, strict=True))
            print(f"{name}: median {clock:.3f} on the clock, {cpu:.3f} in CPU seconds")
        for program in programs:
            program.close()


if __name__ == "__main__":
    main()
