"""Tests whether a machine or a slice can be trusted with a run: `python -m nft_jax.smoke`."""
