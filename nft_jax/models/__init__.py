"""The decoder: layers, attention, key-value cache, log-probs, Hugging Face folders."""
