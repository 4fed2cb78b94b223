"""NFT beside DAPO, GRPO, NGRPO and NSR, on the harder task of `compare_negatives`.

Claim     None before the study. What it found is in colab/comparison.md.
Question  How NFT compares with losses that clip hard (DAPO, GRPO), and with those that learn from groups without a
          correct answer, which NFT leaves out (NGRPO; NSR, from all incorrect answers alone).
Cost      35 runs of 400,000 sampled tokens, 30 to 50 s each on a core that had other work too.
Command   python -m nft_jax.compare --config=compare_all_incorrect --workdir=runs/all_incorrect
          and with --config.compare.updates=60 --workdir=runs/all_incorrect_by_updates, for equal updates. Finished
          runs of plain `nft` in the workdir of `compare_negatives` are the same: copy its folders `bases` and `runs`
          to reuse them.
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("compare_negatives")
    config.compare.losses = "nft; dapo; grpo; ngrpo; nsr"
    return config
