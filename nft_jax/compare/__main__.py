"""Compares losses, by the models that they train or by their gradients on one rollout.

    python -m nft_jax.compare --config=compare_losses --workdir=runs/compare
    python -m nft_jax.compare --equivalence
    python -m nft_jax.compare --scale --config=smollm2 --workdir=runs/scale

The config's section `compare` names the losses, the numbers of updates a rollout, and the seeds:

    --config.compare.losses="nft; nft omega=one; my_losses:mine" --config.compare.updates_per_rollout=1,8 \\
    --config.compare.seeds=0,1,2

All runs start from the same bases and sample the same number of tokens, or take the same number of updates, if
`compare.updates` is given. Each loss chooses its learning rate among `compare.learning_rates` on
`compare.tuning_seeds`, which are not reported. The workdir keeps finished runs: the same command continues an
interrupted study. At the end it writes comparison.json, comparison.md, learning.png, final.png and, with
several numbers of updates a rollout, regimes.png.

--equivalence samples one rollout and compares the gradients of NFT with those of GRPO, Dr. GRPO and RFT, for each
parameter: strictly on-policy, in float64 and float32, on 1 and on 8 devices (simulated on CPUs), and then as the policy
drifts from the one that sampled. Any config will do; the default is configs/equivalence.py. It writes equivalence.json,
equivalence.png, multipliers.png, equalities.md (with which ω and normalizer NFT equals another algorithm), and
matrix.md and matrix.png (which of all losses are equal, or equal up to a factor) into --workdir, by default
runs/equivalence.

--scale samples one rollout and computes the gradients of its updates. It gives them to AdamW at several scales of the
loss, and writes how many are clipped and how much of a step ε leaves; and how much the difference between sampler and
trainer weakens incorrect tokens where log π_old comes from the sampler. It writes scale.json and scale.md.
"""

import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from nft_jax import cli
from nft_jax.compare import equivalence, figures, scale
from nft_jax.compare.study import Study
from nft_jax.compare.summary import format_markdown, summarize
from nft_jax.compare.variants import read_plan
from nft_jax.config import Config
from nft_jax.config.idle import describe_idle_in_study
from nft_jax.experiment import open_experiment
from nft_jax.run.lock import WorkdirLock
from nft_jax.run.workdir import Workdir, provenance


def main(config: Config, workdir: Path | None) -> None:
    """Compares gradients, or trained models."""
    if flags.FLAGS.equivalence:
        _run_lab(equivalence.run, config, workdir, "equivalence")
    elif flags.FLAGS.scale:
        _run_lab(scale.run, config, workdir, "scale")
    elif workdir is None:
        raise ValueError("a study needs --workdir=DIR, which keeps its runs and lets the same command continue it")
    else:
        run_study(config, workdir)


def _run_lab(run: Callable[[Config, Path], None], config: Config, workdir: Path | None, name: str) -> None:
    """Runs a lab in the workdir, which is locked already, or else in `runs/NAME`."""
    folder = workdir or Path("runs") / name
    with contextlib.nullcontext() if workdir else WorkdirLock(folder):
        run(config, folder)


def run_study(config: Config, workdir: Path) -> None:
    """Trains all variants, and writes tables and pictures."""
    plan = read_plan(config)
    for line in describe_idle_in_study(config):
        print(line, flush=True)
    with open_experiment(config, workdir) as base:
        summary = summarize(Study(plan, base, workdir).run())
        run = provenance(config, base.model.attention.name)
    Workdir(workdir).write_json("comparison.json", {"provenance": run} | summary)
    text = format_markdown(summary)
    (workdir / "comparison.md").write_text(text + "\n", encoding="utf-8")
    pictures = figures.draw(summary, workdir)
    print(f"\n{text}\n\npictures: {', '.join(map(str, pictures))}", flush=True)


def _define_flags() -> None:
    flags.DEFINE_bool("equivalence", False, "Compare gradients on one rollout.")
    flags.DEFINE_bool("scale", False, "Measure AdamW's steps at several scales of the loss.")


if __name__ == "__main__":
    _define_flags()
    # Only --equivalence has a default config.
    default = "equivalence" if any(re.match("--?equivalence", word) for word in sys.argv) else None
    cli.run(main, __doc__, holds_workdir=True, needs_workdir=False, default_config=default)
