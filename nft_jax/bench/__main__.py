"""How long a step takes, and where the time goes: python -m nft_jax.bench --config=bench --workdir=DIR

Any config will do; its data is not read. Prompts are random tokens, as many as `data.max_prompt_tokens` allows, and weights
are random. `--lengths` says how long the answers are: `full` (all at the limit), `ends:N` (N of the ids end an answer),
`fixed:N` (all of N tokens), or `lognormal:MEDIAN:SIGMA`. Writes <workdir>/bench.json; `--profile` also a trace for
TensorBoard or Perfetto.

`--peer=trl,tunix,generate --peer_python=PYTHON[,PYTHON,PYTHON]` takes the same step by other libraries too, turn by
turn with ours: TRL's GRPOTrainer (its Python has torch and trl), Tunix's GRPO learner (google-tunix), and, for the
rollout alone, transformers' `generate` (torch and transformers).

`--sweep=NAME:VALUE,VALUE,...` measures each value of a number of the config (rollout.slots:16,32), or of the lengths
(lengths:fixed:16,fixed:32), in a process of its own, and prints a table; for lengths also seconds as a line in tokens.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from nft_jax import cli
from nft_jax.bench.measure import Bench, in_turns, summary, table
from nft_jax.bench.peers.process import PEERS, Peer, compared, paired, peer_workload
from nft_jax.bench.sweep import fits, measured, read_sweep, sweep_table
from nft_jax.bench.workload import Lengths, read_lengths
from nft_jax.config import Config
from nft_jax.run.workdir import provenance


def timed(config: Config, workdir: Path, lengths: Lengths, peers: list[tuple[str, str]]) -> dict[str, Any]:
    """What one config and its peers (names, Pythons) take."""
    given = flags.FLAGS
    with contextlib.ExitStack() as stack:
        workload = peer_workload(config, lengths) if peers else {}
        others = [stack.enter_context(Peer(*peer, workload, workdir)) for peer in peers]
        bench = stack.enter_context(Bench(config, workdir, lengths))
        print(f"attention: {bench.experiment.model.attention.name}", file=sys.stderr, flush=True)
        steps, theirs = in_turns(bench, others, given.warmup, given.repeats)
        if given.profile:
            with jax.profiler.trace(given.profile):
                bench.step()
        found = summary(bench, steps)
    if peers:
        found["peers"] = [compared(*pair, found["median"]) for pair in zip(others, theirs, strict=True)]
    return found | {
        "steps": [step._asdict() for step in steps],
        "run": provenance(config, bench.experiment.model.attention.name),
    }


def main(config: Config, workdir: Path) -> None:
    """Times what the flags say."""
    given = flags.FLAGS
    lengths, peers = read_lengths(given.lengths, config), paired(given.peer, given.peer_python)
    if given.sweep:
        sweep = read_sweep(given.sweep, config)
        rows = measured(sweep, sys.argv[1:], workdir)
        lines = fits(sweep, rows)
        found = {"sweep": sweep.name, "rows": rows, "fits": {part: line._asdict() for part, line in lines.items()}}
        words = sweep_table(sweep, rows, lines)
    else:
        found = timed(config, workdir, lengths, peers)
        words = table(found)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found) if given.json else words, flush=True)


def _define_flags() -> None:
    """Not at import, where flags of the same names of two programs would clash."""
    flags.DEFINE_string("lengths", "full", "How long answers are: full, ends:N, fixed:N or lognormal:MEDIAN:SIGMA.")
    flags.DEFINE_integer("repeats", 5, "Steps that are timed; medians are of these.", lower_bound=1)
    flags.DEFINE_integer("warmup", 1, "Steps before, that are not.", lower_bound=0)
    flags.DEFINE_bool("json", False, "Print the JSON that <workdir>/bench.json has.")
    flags.DEFINE_list("peer", [], f"Other libraries that take turns with ours: {', '.join(PEERS)}, comma between them.")
    flags.DEFINE_list("peer_python", ["python3"], "The Python that has the peers, or one for each in the same order.")
    flags.DEFINE_string("sweep", None, "NAME:VALUE,VALUE: a number of the config, or lengths, at each value in turn.")
    flags.DEFINE_string("profile", None, "A folder for a trace of one more step.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
