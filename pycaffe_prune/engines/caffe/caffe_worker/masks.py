"""Exact masking of a solver of pycaffe."""

import numpy as np


class Masks:
    """Keeps pruned weights at exactly zero: history, snapshots and tests included.

    A fresh solver's history is zero. With the weight zero and the gradient zeroed before the
    update (`on_gradients_ready`, src/caffe/solver.cpp), decay adds 0, the history stays 0 and so
    does the weight. Bits are ANDed, not floats multiplied: NaN and -0.0 become +0.0 too.
    """

    def __init__(self, net, job):
        with np.load("mask.npz", allow_pickle=False) as file:
            arrays = [file["m%d" % place] for place in range(len(job["masked"]))]
        self._blobs = [net.params[layer][index] for layer, index in job["masked"]]
        for blob, array, (layer, index) in zip(self._blobs, arrays, job["masked"]):
            if blob.data.shape != array.shape:
                raise SystemExit(
                    "layer '%s', blob %d: the mask is %s, the weights are %s; use the mask that "
                    "was made for these weights"
                    % (layer, index, _extents(array), _extents(blob.data))
                )
        self._bits = [np.where(array, np.int32(-1), np.int32(0)) for array in arrays]
        # On the CPU a blob's memory stays where it is; after work on a GPU each access copies.
        self._diffs = None
        if job["device"] == "cpu":
            self._diffs = [blob.diff.view(np.int32) for blob in self._blobs]

    def zero_weights(self):
        """Zero the masked weights."""
        for blob, bits in zip(self._blobs, self._bits):
            data = blob.data.view(np.int32)
            np.bitwise_and(data, bits, out=data)

    def zero_gradients(self):
        """Zero the masked gradients; called by the solver between backward and update."""
        diffs = self._diffs or [blob.diff.view(np.int32) for blob in self._blobs]
        for diff, bits in zip(diffs, self._bits):
            np.bitwise_and(diff, bits, diff)

    def revived(self):
        """Count the masked weights that are not zero."""
        return sum(
            int(np.count_nonzero(blob.data[bits == 0]))
            for blob, bits in zip(self._blobs, self._bits)
        )


def _extents(array):
    return "x".join(map(str, array.shape))
