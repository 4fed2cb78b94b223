"""Prints the settings reference: `python -m nft_jax.config > configs/settings.md`."""

from nft_jax.config.reference import page

if __name__ == "__main__":
    print(page(), end="")
