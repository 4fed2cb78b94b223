"""Problems, tokenizers and prompts; NumPy only, nothing here imports jax."""
