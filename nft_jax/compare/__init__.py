"""Compares losses: the models that they train, and their gradients on one rollout."""
