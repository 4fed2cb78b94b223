"""Losses side by side. Their gradients: python -m nft_jax.compare --equivalence [--config=…] [--workdir=…]

--equivalence compares, on a rollout that a model samples, the gradients of NFT with those of GRPO, Dr. GRPO and RFT,
for each parameter: strictly on-policy, in float64 and float32, on 1 and on 8 devices (simulated ones on CPU), and then
as the policy drifts from the one that sampled. Writes equivalence.json, equivalence.png, multipliers.png and the table
of which ω and normaliser is which algorithm, equalities.md, into --workdir, or else runs/equivalence. Any config will
do; by default it is configs/equivalence.py.
"""

from pathlib import Path

from absl import flags

from nft_jax import cli
from nft_jax.comparing import equivalence
from nft_jax.config import Config

EQUIVALENCE = flags.DEFINE_bool("equivalence", False, "Compare gradients on one rollout.")


def main(config: Config, workdir: Path | None) -> None:
    """Does what the flag says."""
    if not EQUIVALENCE.value:
        raise ValueError("what is to be compared? --equivalence compares gradients on one rollout")
    equivalence.run(config, workdir or Path("runs/equivalence"))


if __name__ == "__main__":
    cli.run(main, __doc__, needs_workdir=False, default_config="equivalence")
