"""Seven losses from the same bases with the same sampled tokens: strictly on-policy, and with 8 updates a rollout.

Claim    The paper's, at the size of a toy: NFT beats RFT and matches DAPO, and the entropy of RFT falls faster.
         colab/comparison.md shows which of these hold here.
Task     That of `tiny`; about 35 % of sampled answers are correct at the start. Updates of 32 prompts × 8 answers.
Rates    The same four learning rates for each loss and regime, chosen by sampled accuracy on validation problems with
         seeds 100 and 101. Results are reported on test problems, with seeds 0 to 4.
Cost     182 runs of 160,000 sampled tokens, less than half a minute each on one CPU core, and seven warm starts.
Command  python -m nft_jax.compare --config=compare_losses --workdir=runs/compare
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("tiny")
    config.prompts_per_step = 32
    config.answers_per_prompt = 8
    config.updates_per_step = 1
    # Rounds of half the prompts of an update: fewer answers are sampled in vain.
    config.selection.candidates_per_round = 16
    config.selection.max_rounds = 8
    config.packing.rows_per_micro_batch = 32

    config.compare.losses = "nft; rft; grpo; dr_grpo; dapo; dpo; contrast"
    config.compare.updates_per_rollout = "1, 8"
    config.compare.sampled_tokens = 160_000
    config.compare.seeds = "0, 1, 2, 3, 4"
    config.compare.learning_rates = "7.5e-5, 1.5e-4, 3e-4, 6e-4"
    config.compare.tuning_seeds = "100, 101"
    return config
