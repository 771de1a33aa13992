"""Weights that share a value and keep to it while a solver of pycaffe trains.

The torch engine finds groups by `groups_of` too. On a GPU the weights go through the host.
"""

from contextlib import contextmanager

import numpy as np

from .masks import Masks


class Groups:
    """Weights of one blob by the value that they share; those that are zero are in none.

    Places are into the flat blob. ``places`` has a group's weights side by side, in their order in
    the blob; ``starts`` says where in it each group begins, ``firsts`` the place of its first
    weight, ``codes`` the group of each of ``places``. ``signs`` is None, or 1 and -1: what each
    weight is of its group's first.
    """

    def __init__(self, values, signed):
        flat = values.reshape(-1)
        places = np.flatnonzero(flat)
        shared = np.abs(flat[places]) if signed else flat[places]
        order = np.argsort(shared, kind="stable")
        shared, self.places = shared[order], places[order]
        begins = np.append(True, shared[1:] != shared[:-1])[: shared.size]
        self.starts = np.flatnonzero(begins)
        self.firsts = self.places[self.starts]
        self.codes = np.cumsum(begins) - 1
        self.signs = None
        if signed:
            positive = np.sign(flat[self.places]).astype(np.float32)
            self.signs = positive * positive[self.starts][self.codes]


def groups_of(layer, index, values, signed):
    """Return the groups of a blob whose weights are ``values``."""
    if not np.isfinite(values).all():
        raise SystemExit(
            "layer '%s', blob %d: a weight is NaN or infinite; it can share no value"
            % (layer, index)
        )
    return Groups(values, signed)


class Tied(Masks):
    """Keeps equal weights equal, and those that are zero at zero.

    Between backward and update the first weight of each group gets the sum of its group's
    gradients, or their mean, and the others none, so that whatever the solver does next (clip,
    decay, momentum) it does once for a group. Before the next pass, a test or a file the others get
    its value: the update moves them too, by the decay, and rounds the end of a blob in other ways
    than its middle.
    """

    def __init__(self, net, job):
        super().__init__(net, job)
        self.zero_weights()
        self._shared = []
        self._mean = job["tying"]["gradient"] == "mean"
        for layer, index in job["tying"]["blobs"]:
            blob = net.params[layer][index]
            signed = job["tying"]["signed"]
            self._shared.append((blob, groups_of(layer, index, blob.data, signed)))
            blob.data[blob.data == 0] = 0  # or -0.0 would stay

    def follow(self, solver):
        """Do what is to be done in each iteration of a solver."""
        solver.add_callback(self.settle, self.zero_gradients)

    def zero_gradients(self):
        """Give each group one gradient; between backward and update."""
        super().zero_gradients()
        for blob, groups in self._shared:
            diff = blob.diff.reshape(-1)
            own = diff[groups.places]
            if groups.signs is not None:
                own *= groups.signs
            sums = np.add.reduceat(own, groups.starts, dtype=np.float64)
            if self._mean:
                sums /= np.diff(np.append(groups.starts, groups.places.size))
            diff.fill(0)
            diff[groups.firsts] = sums

    def settle(self):
        """Give each weight the value of its group's first."""
        for blob, groups in self._shared:
            blob.data.reshape(-1)[groups.places] = _values(blob, groups)

    @contextmanager
    def shown(self):
        """As `settle`, for a test."""
        self.settle()
        yield

    def revived(self):
        """Count the weights that are to be zero and are not."""
        alive = super().revived()
        for blob, groups in self._shared:
            rest = blob.data.reshape(-1).copy()
            rest[groups.places] = 0
            alive += int(np.count_nonzero(rest))
        return alive

    def resume(self, iteration):
        """Go on after so many iterations, with the weights that were loaded."""
        super().resume(iteration)
        parted = self.revived() + sum(
            int(np.count_nonzero(blob.data.reshape(-1)[groups.places] != _values(blob, groups)))
            for blob, groups in self._shared
        )
        if parted:
            raise SystemExit("%d weights have not their group's value after loading" % parted)


def _values(blob, groups):
    """The value of its group's first for each of the groups' places."""
    values = blob.data.reshape(-1)[groups.firsts][groups.codes]
    return values if groups.signs is None else values * groups.signs
