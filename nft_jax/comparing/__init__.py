"""Losses side by side: gradients on the same rollout, multipliers, and whole runs."""
