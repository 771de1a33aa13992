"""Readings of the paper: presets of one experiment, held against what its figure shows."""
