"""Exact masking of a solver of pycaffe."""

from contextlib import contextmanager

import numpy as np


class Masks:
    """Keeps pruned weights at exactly zero: history, snapshots and tests included.

    A fresh solver's history is zero. With the weight zero and the gradient zeroed before the
    update (`on_gradients_ready`, src/caffe/solver.cpp), decay adds 0, the history stays 0 and so
    does the weight. Bits are ANDed, not floats multiplied: NaN and -0.0 become +0.0 too.
    """

    def __init__(self, net, job):
        self._hold(net, job, start_masks(job))

    def _hold(self, net, job, arrays):
        """Mask these blobs: boolean arrays by layer and index."""
        self._blobs = [net.params[layer][index] for layer, index in arrays]
        for blob, ((layer, index), array) in zip(self._blobs, arrays.items()):
            if blob.data.shape != array.shape:
                raise SystemExit(
                    "layer '%s', blob %d: the mask is %s, the weights are %s; use the mask that "
                    "was made for these weights"
                    % (layer, index, _extents(array), _extents(blob.data))
                )
        self._zeroed = range(len(self._blobs))  # whose masked weights are zero all the time
        self._bits = [as_bits(array) for array in arrays.values()]
        # On the CPU a blob's memory stays where it is; after work on a GPU each access copies.
        self._diffs = None
        if job["device"] == "cpu":
            self._diffs = [blob.diff.view(np.int32) for blob in self._blobs]

    def follow(self, solver):
        """Do what is to be done in each iteration of a solver."""
        if self._blobs:
            solver.add_callback(lambda: None, self.zero_gradients)

    def zero_weights(self):
        """Zero the masked weights."""
        for place in self._zeroed:
            self._zero(self._blobs[place].data, place)

    def _zero(self, values, place):
        values = values.view(np.int32)
        np.bitwise_and(values, self._bits[place], out=values)

    def zero_gradients(self):
        """Zero the masked gradients; called by the solver between backward and update."""
        diffs = self._diffs or [blob.diff.view(np.int32) for blob in self._blobs]
        for diff, bits in zip(diffs, self._bits):
            np.bitwise_and(diff, bits, diff)

    def revived(self):
        """Count the masked weights that are not zero."""
        return self._alive(range(len(self._blobs)))

    def _alive(self, places):
        return sum(
            int(np.count_nonzero(self._blobs[place].data[self._bits[place] == 0]))
            for place in places
        )

    def resume(self, _iteration):
        """Go on after so many iterations, with the weights that were loaded."""
        alive = self._alive(self._zeroed)
        if alive:
            raise SystemExit("%d masked weights are not zero after loading" % alive)

    def settle(self):
        """Leave the weights as a snapshot is to have them: they are."""

    def save(self, _iteration):
        """Write what a snapshot needs besides weights and state: nothing."""

    @contextmanager
    def shown(self):
        """Leave the weights as passes use them, for a test or a file: they are."""
        yield


def start_masks(job):
    """Return the masks that a job begins with: boolean arrays by layer and index, in its order."""
    if not job["masked"]:
        return {}
    with np.load("mask.npz", allow_pickle=False) as file:
        return {tuple(key): file["m%d" % place] for place, key in enumerate(job["masked"])}


def as_bits(mask):
    """An int32 array, -1 where a boolean one is True and a weight kept."""
    return np.where(mask, np.int32(-1), np.int32(0))


def _extents(array):
    return "x".join(map(str, array.shape))
