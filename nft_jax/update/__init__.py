"""From groups to new weights: selection, minibatches, packing, updates and the optimizer."""
