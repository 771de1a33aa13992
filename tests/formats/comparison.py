"""Models compared bit for bit."""

import numpy as np

from pycaffe_prune.formats.caffemodel import Caffemodel


def require_same_blobs(found: Caffemodel, expected: Caffemodel) -> None:
    ours, theirs = list(found.blobs()), list(expected.blobs())
    assert [key for key, _ in ours] == [key for key, _ in theirs]
    for (_, blob), (_, other) in zip(ours, theirs, strict=True):
        assert blob.dtype == np.float32
        assert blob.shape == other.shape
        assert blob.tobytes() == other.tobytes()
