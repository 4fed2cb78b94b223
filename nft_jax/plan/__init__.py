"""Plans a step: whether it fits devices, which need not be present, and an estimate of its time."""
