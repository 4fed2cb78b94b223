"""Other libraries' steps, for `nft_jax.bench` to be compared with.

`process.py` runs the other files, each by its path in another Python, which has that library; they import nothing of
this package.
"""
