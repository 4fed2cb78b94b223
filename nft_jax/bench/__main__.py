"""Measures how long a step takes, and where the time goes.

    python -m nft_jax.bench --config=bench --workdir=DIR

Any config will do; its data is not read. Prompts are random tokens, all of `data.max_prompt_tokens`, and weights are
random. `--lengths` gives the lengths of the answers: `full` (all at the limit), `ends:N` (N of the ids end an answer),
`fixed:N` (all of N tokens), or `lognormal:MEDIAN:SIGMA`. Writes <workdir>/bench.json; `--profile` also writes a trace
for TensorBoard or Perfetto.

`--peer=trl,tunix,generate,vllm --peer_python=PYTHON[,PYTHON,…]` lets other libraries take the same step, in turns with
this package: TRL's GRPOTrainer (its Python has torch and trl), Tunix's GRPO learner (google-tunix), and for the rollout
alone transformers' `generate` (torch and transformers) and vLLM's (vllm, on a GPU, whose memory both must share: set
XLA_PYTHON_CLIENT_MEM_FRACTION=0.5).

`--sweep=NAME:VALUE,VALUE,...` measures each value of a number of the config (rollout.slots:16,32), or of the lengths
(lengths:fixed:16,fixed:32), in a process of its own, and prints a table; for lengths also a line of seconds in tokens.
"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from nft_jax import cli
from nft_jax.bench.measure import open_bench, summarize, take_turns
from nft_jax.bench.peers.process import PEERS, Peer, compare_peer, match_pythons, peer_workload
from nft_jax.bench.sweep import fit_lines, measure_values, read_sweep
from nft_jax.bench.tables import step_table, sweep_table
from nft_jax.bench.workload import Lengths, read_lengths
from nft_jax.config import Config
from nft_jax.files import json_text
from nft_jax.run.workdir import Workdir, provenance


def measure(config: Config, workdir: Path, lengths: Lengths, peers: list[tuple[str, str]]) -> dict[str, Any]:
    """Measures one config, and peers given as (name, Python)."""
    given = flags.FLAGS
    with contextlib.ExitStack() as stack:
        workload = peer_workload(config, lengths, [name for name, _ in peers]) if peers else {}
        others = [stack.enter_context(Peer(*peer, workload, workdir)) for peer in peers]
        bench = stack.enter_context(open_bench(config, workdir, lengths))
        print(f"attention: {bench.experiment.model.attention.name}", file=sys.stderr, flush=True)
        steps, peer_steps = take_turns(bench, others, given.warmup, given.repeats)
        if given.profile:
            with jax.profiler.trace(given.profile):
                bench.step()
        result = summarize(bench, steps)
    if peers:
        result["peers"] = [compare_peer(*pair, result["median"]) for pair in zip(others, peer_steps, strict=True)]
    run = provenance(config, bench.experiment.model.attention.name)
    return result | {"steps": [step._asdict() for step in steps], "run": run}


def main(config: Config, workdir: Path) -> None:
    """Measures, prints, and writes bench.json."""
    given = flags.FLAGS
    lengths, peers = read_lengths(given.lengths, config), match_pythons(given.peer, given.peer_python)
    if given.profile and (file := _find_file(Path(given.profile))):
        raise ValueError(f"--profile={given.profile}: {file} is a file; name a folder for the trace")
    if given.sweep:
        sweep = read_sweep(given.sweep, config)
        rows = measure_values(sweep, cli.given_words(), workdir)
        lines = fit_lines(sweep, rows)
        result = {"sweep": sweep.name, "rows": rows, "fits": {part: line._asdict() for part, line in lines.items()}}
        text = sweep_table(sweep, rows, lines)
    else:
        result = measure(config, workdir, lengths, peers)
        text = step_table(result)
    Workdir(workdir).write_json("bench.json", result)
    trace = f"; trace: {given.profile}" if given.profile else ""
    print(json_text(result) if given.json else f"{text}\nresults: {workdir / 'bench.json'}{trace}", flush=True)


def _find_file(path: Path) -> Path | None:
    """Returns the part of a path that is a file, if one is: the path can't be a folder then."""
    return next((each for each in (path, *path.parents) if each.is_file()), None)


def _define_flags() -> None:
    flags.DEFINE_string("lengths", "full", "Lengths of answers: full, ends:N, fixed:N or lognormal:MEDIAN:SIGMA.")
    flags.DEFINE_integer("repeats", 5, "Number of steps that are timed, for medians.", lower_bound=1)
    flags.DEFINE_integer("warmup", 1, "Number of steps before, which are not timed.", lower_bound=0)
    flags.DEFINE_bool("json", False, "Print the contents of <workdir>/bench.json instead of the table.")
    flags.DEFINE_list("peer", [], f"Other libraries that take turns with this one: {', '.join(PEERS)}.")
    flags.DEFINE_list("peer_python", ["python3"], "The Python that has the peers, or one for each in the same order.")
    flags.DEFINE_string("sweep", None, "NAME:VALUE,VALUE: a number of the config, or lengths, at each value.")
    flags.DEFINE_string("profile", None, "Folder for a trace of one more step.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__, holds_workdir=True)
