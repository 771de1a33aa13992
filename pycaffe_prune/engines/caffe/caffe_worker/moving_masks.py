"""What changes the weights of a solver of pycaffe between passes and updates: masks, or levels.

The rules are those of `pruning.dynamic_surgery` and `pruning.gradual`, said again for a Python that
cannot import them; a test holds them against each other. On a GPU the weights go through the host.
"""

from contextlib import contextmanager

import numpy as np

from .few_bits import on_few_levels
from .mask_state import read_mask_state, write_mask_state
from .masks import Masks, as_bits, start_masks
from .snapshots import SNAPSHOT

_WORD = 2**64 - 1


def make_moving(net, job):
    """Return the masks of a job whose ``masking`` says how they change."""
    kinds = {"dynamic_surgery": Surgery, "few_bits": FewBits, "gradual": Gradual}
    return kinds[job["masking"]["kind"]](net, job)


class _Moving(Masks):
    """Masks of which some change; the others stay as the job has them."""

    def __init__(self, net, job):
        self._told, self._seed, self._limits = job["masking"], job["seed"], []
        keys = [(blob["layer"], blob["index"]) for blob in self._told["blobs"]]
        arrays = start_masks(job)
        for layer, index in keys:
            shape = net.params[layer][index].data.shape
            arrays.setdefault((layer, index), np.ones(shape, np.bool_))
        self._hold(net, job, arrays)
        self._places = [list(arrays).index(key) for key in keys]

    def follow(self, solver):
        """Do what is to be done in each iteration of a solver."""
        solver.add_callback(lambda: self.begin(solver.iter), self.zero_gradients)

    def save(self, iteration):
        """Write the masks beside the snapshot of this iteration, in the working directory."""
        masks = [self._bits[place] != 0 for place in self._places]
        write_mask_state(SNAPSHOT % iteration, masks, self._limits)

    def resume(self, iteration):
        """Go on with the masks beside a snapshot in the working directory; 0: with those given."""
        if iteration:
            masks, self._limits = read_mask_state(SNAPSHOT % iteration)
            for place, mask in zip(self._places, masks):
                self._bits[place] = as_bits(mask)
        super().resume(iteration)


class Gradual(_Moving):
    """Masks that shrink by the cubic law; what is pruned stays so, and is zero.

    pycaffe gives no way to a solver's history, which moves a weight on after it was pruned. So it
    is zeroed again before each pass: its history fades, and nothing sees it.
    """

    def begin(self, iteration):
        """Shrink the masks where that is due, and zero what they prune; before each iteration."""
        since, told = iteration - self._told["begin"], self._told
        made = since // told["every"]
        if since >= 0 and since % told["every"] == 0 and made <= told["changes"]:
            for place, blob in zip(self._places, told["blobs"]):
                rest = (1 - made / told["changes"]) ** 3
                share = blob["sparsity"] + (told["initial"] - blob["sparsity"]) * rest
                kept = shrunk(self._blobs[place].data, self._bits[place] != 0, share)
                self._bits[place] = as_bits(kept)
        self.zero_weights()

    def settle(self):
        """Zero what the last update moved, for weights to be written."""
        self.zero_weights()

    @contextmanager
    def shown(self):
        """As `settle`, for a test."""
        self.zero_weights()
        yield


class _DenseCopies(_Moving):
    """Passes use weights that are made of the dense ones, which updates move."""

    def __init__(self, net, job):
        super().__init__(net, job)
        self._dense = [np.empty_like(self._blobs[place].data) for place in self._places]

    def _show(self):
        for number, (place, dense) in enumerate(zip(self._places, self._dense)):
            np.copyto(dense, self._blobs[place].data)
            self._show_one(number, place, self._blobs[place].data)

    def _hide(self):
        for place, dense in zip(self._places, self._dense):
            np.copyto(self._blobs[place].data, dense)

    @contextmanager
    def shown(self):
        """Show them meanwhile: for tests, and for the weights that the run leaves."""
        self._show()
        yield
        self._hide()


class Surgery(_DenseCopies):
    """Dynamic Network Surgery: passes use the masked weights, updates the dense ones."""

    def __init__(self, net, job):
        super().__init__(net, job)
        self._zeroed = [place for place in self._zeroed if place not in self._places]

    def begin(self, iteration):
        """Make the masks anew where they are drawn, and mask the weights; before each iteration."""
        told = self._told
        self._limits = self._limits or [
            surgery_limits(self._blobs[place].data, blob["c"], self._bits[place] != 0)
            for place, blob in zip(self._places, told["blobs"])
        ]
        if iteration < told["stop"]:
            chance = (1 + told["gamma"] * iteration) ** -told["power"]
            for number, (place, limits) in enumerate(zip(self._places, self._limits)):
                if surgery_draw(self._seed, iteration, number) < chance:
                    kept = operated(self._blobs[place].data, self._bits[place] != 0, limits)
                    self._bits[place] = as_bits(kept)
        self._show()

    def _show_one(self, _number, place, weights):
        self._zero(weights, place)

    def zero_gradients(self):
        """Put the dense weights back, and zero the gradients where masks stay; before an update."""
        self._hide()
        for place in self._zeroed:
            self._zero(self._blobs[place].diff, place)


class FewBits(_DenseCopies):
    """Passes use weights on few levels, updates the dense ones; masks stay."""

    def begin(self, _iteration):
        """Put the weights on their levels; before each iteration."""
        self._show()

    def _show_one(self, number, place, weights):
        told, kept = self._told["blobs"][number], self._bits[place] != 0
        weights[...] = on_few_levels(
            weights, told["rule"], told["bits"], None if kept.all() else kept
        )

    def zero_gradients(self):
        """Put the dense weights back, and zero the masked gradients; before an update."""
        self._hide()
        super().zero_gradients()

    def save(self, _iteration):
        """Write what a snapshot needs besides weights and state: nothing."""

    def resume(self, _iteration):
        """Go on with the dense weights of a snapshot, or with those that were loaded."""
        Masks.resume(self, _iteration)


def shrunk(weights, kept, share):
    """As `pruning.gradual.gradual_mask`."""
    mask, alive = kept.copy(), np.flatnonzero(kept)
    more = round(share * weights.size) - (weights.size - alive.size)
    if more > 0:
        sizes = np.abs(weights.reshape(-1)[alive])
        limit = np.partition(sizes, more - 1)[more - 1]
        below, equal = alive[sizes < limit], alive[sizes == limit]
        mask.reshape(-1)[below] = False
        mask.reshape(-1)[equal[: more - below.size]] = False
    return mask


def operated(weights, kept, limits):
    """As `pruning.dynamic_surgery.surgery_mask`."""
    sizes = np.abs(weights)
    return (sizes >= limits[1]) | (kept & (sizes >= limits[0]))


def surgery_limits(weights, c, kept):
    """As in `pruning.dynamic_surgery`."""
    sizes = np.abs(weights[(weights != 0) & kept]).astype(np.float64)
    middle = max(sizes.mean() + c * sizes.std(), 0.0) if sizes.size else 0.0
    return np.float32(0.9 * middle), np.float32(1.1 * middle)


def surgery_draw(seed, iteration, place):
    """As in `pruning.dynamic_surgery`."""
    state = 0
    for value in (seed, iteration, place):
        state = (((state ^ value) & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return (state >> 11) / 2**53
