"""Prune Caffe models: connections and units, with the real Caffe as engine and judge."""

import os

# OpenCV reads it once, when it is loaded, and its own limit of 2**30 pixels takes 3 GiB an image.
# The largest image of ImageNet has 61 million.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

__version__ = "0.1.0"
