"""Builders of the data sets: LMDBs that the real Caffe reads, with a manifest."""

import pycaffe_prune  # noqa: F401  (sets the limit of images before OpenCV is loaded)
