"""What `nft_jax.bench` is made of, beside the steps that it times."""
