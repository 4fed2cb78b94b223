"""Losses side by side, from the same bases and with the same sampled tokens, or by their gradients on one rollout:

    python -m nft_jax.compare --config=compare_losses --workdir=runs/compare
    python -m nft_jax.compare --equivalence

The section `compare` of the config says which losses, in how many updates a rollout, on which seeds:

    --config.compare.losses="nft; nft omega=one; my_losses:mine" --config.compare.updates_per_rollout=1,8 \\
    --config.compare.seeds=0,1,2

Each loss chooses its learning rate among `compare.learning_rates` on `compare.tuning_seeds`, which are not reported. Finished
runs are kept in the workdir and never done again: the same command goes on where it was ended. At the end it writes
comparison.json, comparison.md, learning.png and final.png into the workdir.

--equivalence compares, on a rollout that a model samples, the gradients of NFT with those of GRPO, Dr. GRPO and RFT,
for each parameter: strictly on-policy, in float64 and float32, on 1 and on 8 devices (simulated ones on CPU), and then
as the policy drifts from the one that sampled. Any config will do; by default it is configs/equivalence.py. It writes
equivalence.json, equivalence.png, multipliers.png and equalities.md, which ω and normaliser is which algorithm, into
--workdir, by default runs/equivalence.
"""

import sys
from pathlib import Path

from absl import flags

from nft_jax import cli
from nft_jax.compare import equivalence, figures
from nft_jax.compare.study import Study
from nft_jax.compare.summary import summarised, table
from nft_jax.compare.variants import read_plan
from nft_jax.config import Config
from nft_jax.experiment import open_experiment
from nft_jax.run.workdir import Workdir, provenance

EQUIVALENCE = flags.DEFINE_bool("equivalence", False, "Compare gradients on one rollout.")


def main(config: Config, workdir: Path | None) -> None:
    """Compares gradients, or whole runs."""
    if EQUIVALENCE.value:
        equivalence.run(config, workdir or Path("runs/equivalence"))
    elif workdir is None:
        raise ValueError("a study needs --workdir=DIR: its runs are kept there, and go on there")
    else:
        study(config, workdir)


def study(config: Config, workdir: Path) -> None:
    """Compares runs, and reports."""
    plan = read_plan(config)
    with open_experiment(config, workdir) as base:
        found = summarised(Study(plan, base, workdir).run(), config.compare.sampled_tokens)
        made_by = provenance(config, base.model.attention.name)
    Workdir(workdir).write("comparison.json", {"provenance": made_by} | found)
    text = table(found)
    (workdir / "comparison.md").write_text(text + "\n", encoding="utf-8")
    pictures = figures.draw(found, workdir)
    print(f"\n{text}\n\npictures: {', '.join(map(str, pictures))}", flush=True)


if __name__ == "__main__":
    # A study has no config that goes without saying.
    asked = any(word.startswith("--equivalence") for word in sys.argv)
    cli.run(main, __doc__, needs_workdir=False, default_config="equivalence" if asked else None)
