"""Plans a step: whether it fits devices that need not be there, and an estimate of its time."""
