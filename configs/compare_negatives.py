"""Is it ω or the incorrect answers? NFT with two ω and three weights of incorrect answers, on a harder default task.

Claim     None before the study. What it found is in colab/comparison.md.
Question  Which of the two brings NFT's gain over RFT. `negative_weight=0` learns from correct answers alone: with
          ω = 1 it is RFT, with ω = 1 − r̂ it is RFT that weighs hard prompts more.
Task      That of `tiny` with numbers up to 9. The base saw half as many worked solutions, of which 80 % follow the
          misconception, so that incorrect answers are the most of what is sampled.
Rates     The same two learning rates for each loss, chosen on validation problems with seed 100.
          Results are on test problems, with seeds 0 to 4.
Cost      42 runs of 400,000 sampled tokens, about 35 s each on a core that had other work too, and six warm starts.
Command   python -m nft_jax.compare --config=compare_negatives --workdir=runs/negatives
          and with --config.compare.updates=60 --workdir=runs/negatives_by_updates, for equal updates
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("compare_losses")
    config.data.arithmetic_max_operand = 9
    config.warm_start.incorrect_share = 0.8
    config.warm_start.steps = 350

    config.compare.losses = """
        nft
        rft
        nft negative_weight=0.0
        nft omega=one
        nft negative_weight=0.5
        nft omega=one negative_weight=0.5
    """
    config.compare.updates_per_rollout = "4"
    config.compare.learning_rates = "1.5e-4, 3e-4"
    config.compare.tuning_seeds = "100"
    # At 160,000 the losses have barely begun: 4 % of the base's sampled answers are correct.
    config.compare.sampled_tokens = 400_000
    return config
