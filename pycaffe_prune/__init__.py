"""Prune Caffe models: connections and units, with the real Caffe as engine and judge."""

__version__ = "0.1.0"
