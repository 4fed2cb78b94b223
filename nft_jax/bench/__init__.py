"""Measures how long a step takes, and where the time goes: `python -m nft_jax.bench`."""
