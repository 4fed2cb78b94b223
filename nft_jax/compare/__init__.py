"""What `python -m nft_jax.compare` is made of: losses side by side, by their gradients and by what they train."""
