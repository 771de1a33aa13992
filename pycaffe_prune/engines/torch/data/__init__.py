"""Caffe's data layers: where a net's batches come from."""
