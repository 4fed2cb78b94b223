"""Losses side by side, from the same bases and with the same sampled tokens:

    python -m nft_jax.compare --config=compare_losses --workdir=runs/compare

The section `compare` of the config says which losses, in how many updates a rollout, on which seeds:

    --config.compare.losses="nft; nft omega=one; my_losses:mine" --config.compare.updates=1,8 --config.compare.seeds=0,1

Each loss chooses its learning rate among `compare.rates` on `compare.tuning_seeds`, which are not reported. Finished
runs are kept in the workdir and never done again: the same command goes on where it was ended.
"""

from pathlib import Path

from nft_jax import cli
from nft_jax.comparing.study import Study
from nft_jax.config import Config


def main(config: Config, workdir: Path) -> None:
    """Compares, and reports."""
    with Study(config, workdir) as study:
        found = study.run()
    print(found.rates)


if __name__ == "__main__":
    cli.run(main, __doc__)
