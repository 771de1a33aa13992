"""The names of `python/caffe/pycaffe.py`: the net as scripts use it."""

from pycaffe_prune.pycaffe.net import Net

__all__ = ["Net"]
