"""What `nft_jax.plan` is made of: chips, topologies that nobody holds, and the reading of a compiled program."""
