"""NFT taken apart, with 8 updates a rollout: each ω with and without negatives, and three ε.

Claim    The paper's: ω = 1 − r̂ and √odds beat ω = 1, and ε → 0 hurts; its reviewers asked whether the gain is ω's or
         the negatives'. What of it holds here stands in colab/comparison.md.
Rates    Three of those of `compare_losses`, whose finished runs of plain `nft` are the same: its folders `bases` and
         `runs`, copied into this workdir, are taken up.
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
