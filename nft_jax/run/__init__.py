"""The host's side of a run: its folder, checkpoints, metrics and end."""
