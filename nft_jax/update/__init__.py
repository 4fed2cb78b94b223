"""From groups to new weights: packing, updates, optimizer, checkpoints and the run's record."""
