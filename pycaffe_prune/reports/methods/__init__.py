"""Methods beside each other: accuracy against what is left of the net, over all seeds."""
