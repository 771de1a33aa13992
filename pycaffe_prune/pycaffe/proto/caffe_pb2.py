"""Caffe's messages and enums: those of `pycaffe_prune.formats.caffe_pb2`, the same classes."""

from pycaffe_prune.formats.caffe_pb2 import *  # noqa: F403 (whatever the schema names)
