"""Pruning criteria as pure functions of the weights."""
