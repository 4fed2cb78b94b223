"""How many updates to take from a rollout: NFT, whose clamp keeps a gradient, beside hard clips, on the harder task.

Claim     None before the study. What it found is in colab/comparison.md.
Question  Whether NFT's soft clamp gains or loses against the hard clips of GRPO and DAPO as the policy moves away
          from the one that sampled: 1, 4 and 16 updates a rollout.
Rates     The same four learning rates for each loss and regime, chosen on validation problems with seed 100.
          Results are on test problems, with seeds 0 to 4.
Cost      108 runs of 400,000 sampled tokens, 27 to 96 s each on cores that had much other work, and six warm starts:
          75 minutes in two processes side by side.
Command   python -m nft_jax.compare --config=compare_off_policy --workdir=runs/off_policy
          and with --config.compare.updates=48 --workdir=runs/off_policy_by_updates, for equal updates. Finished runs
          with 4 updates in the workdir of `compare_all_incorrect` are the same: copy its folders `bases` and `runs`
          to reuse them.
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("compare_negatives")
    config.compare.losses = "nft; rft; dapo; grpo"
    config.compare.updates_per_rollout = "1, 4, 16"
    config.compare.learning_rates = "7.5e-5, 1.5e-4, 3e-4, 6e-4"
    return config
