"""Caffe's layers on PyTorch, one class per layer type."""
