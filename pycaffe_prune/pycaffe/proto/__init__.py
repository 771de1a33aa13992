"""Caffe's protobuf messages, where pycaffe has them."""
