"""The decoder of the Qwen2 family: layers, attention, key-value cache, log-probs, Hugging Face folders."""
