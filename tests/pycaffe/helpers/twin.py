"""What the twin scripts print their numbers with; no script itself."""

import json

import numpy as np


def show(name, values, iterations=1):
    """Print values (numbers, an array, a message, texts or lists of them) under a name.

    Floats are compared with what the parity suite allows after ``iterations`` iterations of a
    solver; everything else must be equal.
    """
    if isinstance(values, (np.ndarray, np.generic)):
        values = values.tolist()
    if hasattr(values, "SerializeToString"):  # text has other digits in each protobuf
        values = "".join(map("{:02x}".format, values.SerializeToString()))
    print("{}@{}: {}".format(name, iterations, json.dumps(values)))


def fill(net, seed, scale=0.3):
    """Give a net's parameters values that are the same in every Caffe."""
    rng = np.random.RandomState(seed)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.randn(*blob.data.shape) * scale


def written(name, proto):
    """Write a message as text and return the file's name."""
    with open(name, "w") as file:
        file.write(str(proto))
    return name
