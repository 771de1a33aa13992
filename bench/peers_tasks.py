"""What all sides of `peers.py` must know (Python 3.6 on, nothing imported)."""

BATCH = 64
TEST_BATCHES = 100

_LENET_300_100 = [
    ("flatten", "flatten", ()),
    ("ip1", "linear", ()),
    ("relu1", "relu", ()),
    ("ip2", "linear", ()),
    ("relu2", "relu", ()),
    ("ip3", "linear", ()),
]
_LENET = [
    ("conv1", "conv", (1, 0, 1)),
    ("pool1", "pool", (2, 2)),
    ("conv2", "conv", (1, 0, 1)),
    ("pool2", "pool", (2, 2)),
    ("flatten", "flatten", ()),
    ("ip1", "linear", ()),
    ("relu1", "relu", ()),
    ("ip2", "linear", ()),
]
_CAFFENET = [
    ("conv1", "conv", (4, 0, 1)),
    ("relu1", "relu", ()),
    ("pool1", "pool", (3, 2)),
    ("norm1", "lrn", ()),
    ("conv2", "conv", (1, 2, 2)),
    ("relu2", "relu", ()),
    ("pool2", "pool", (3, 2)),
    ("norm2", "lrn", ()),
    ("conv3", "conv", (1, 1, 1)),
    ("relu3", "relu", ()),
    ("conv4", "conv", (1, 1, 2)),
    ("relu4", "relu", ()),
    ("conv5", "conv", (1, 1, 2)),
    ("relu5", "relu", ()),
    ("pool5", "pool", (3, 2)),
    ("flatten", "flatten", ()),
    ("fc6", "linear", ()),
    ("relu6", "relu", ()),
    ("fc7", "linear", ()),
    ("relu7", "relu", ()),
    ("fc8", "linear", ()),
]
SEQUENCES = {"lenet_300_100": _LENET_300_100, "lenet": _LENET, "caffenet": _CAFFENET}
"""Each network for PyTorch: names, kinds, and (stride, pad, groups) or (kernel, stride)."""
IMAGES = {"lenet_300_100": (1, 28, 28), "lenet": (1, 28, 28), "caffenet": (3, 227, 227)}
"""The shape of an image."""
