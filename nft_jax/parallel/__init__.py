"""The device mesh, and the layouts of arrays on it."""
