"""The Qwen2-family decoder: weights, attention and the cache."""
