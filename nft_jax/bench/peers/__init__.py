"""Other libraries' steps, which `nft_jax.bench` compares with ours.

`process.py` runs the other files by their paths, in Pythons that have these libraries; they import nothing of this
package.
"""
