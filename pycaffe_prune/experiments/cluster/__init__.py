"""Experiments on many machines, by Dask."""
