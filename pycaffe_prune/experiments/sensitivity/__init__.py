"""Accuracy against pruning rate, layer by layer."""
