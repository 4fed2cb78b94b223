"""The parts of NFT, with 8 updates a rollout: each ω with and without incorrect answers, and three ε.

Claim    The paper's: ω = 1 − r̂ and √odds beat ω = 1, and ε → 0 hurts. Its reviewers asked whether the gain comes from
         ω or from the incorrect answers. colab/comparison.md shows which of these hold here.
Rates    Three of the learning rates of `compare_losses`. Its finished runs of plain `nft` are the same runs: copy its
         folders `bases` and `runs` into this workdir to reuse them.
Cost     72 runs like those of `compare_losses`, with seeds 0 to 2.
Command  python -m nft_jax.compare --config=compare_omega --workdir=runs/compare_omega
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("compare_losses")
    config.compare.losses = """
        nft
        nft omega=one
        nft omega=sqrt_odds
        nft negative_weight=0.0
        nft omega=one negative_weight=0.0
        nft omega=sqrt_odds negative_weight=0.0
        nft epsilon=0.1
        nft epsilon=0.01
    """
    config.compare.updates_per_rollout = "8"
    config.compare.learning_rates = "7.5e-5, 1.5e-4, 3e-4"
    config.compare.seeds = "0, 1, 2"
    return config
