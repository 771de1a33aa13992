"""Which channels of a net belong together: what one deleted unit or filter takes with it.

Every InnerProduct unit and every Convolution filter makes a channel. Layers carry channels on
(ReLU, Pooling), put them side by side (Concat), repeat them (a flattened 6x6 map is 36 columns of
the next weights), or make several into one: the terms of an Eltwise sum, and the units of layers
that share parameters, can only be deleted together and are one channel here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.net.shapes import Shape

__all__ = ["BlobChannels", "ChannelTrace", "Channels", "Flow", "Grouping", "Ids", "LrnWindow"]

Ids = NDArray[np.int64]
"""Numbers of channels."""


@dataclass(frozen=True)
class BlobChannels:
    """To which channel each index of a parameter blob belongs, axis by axis."""

    axes: tuple[Ids | None, ...]
    """Per axis, shape (extent,); None: this axis has no channels. Along axis 1 of a Convolution
    or Deconvolution with groups, shape (group, extent): each group has other inputs, or filters."""
    reads: int | None = None
    """The axis along which the layer reads its bottom."""


class Grouping(NamedTuple):
    """Channels that a Convolution takes in equal groups."""

    layer: str
    ids: Ids
    """Shape (group, channels of one group)."""


class LrnWindow(NamedTuple):
    """Channels that an LRN layer sums over, in their order."""

    layer: str
    ids: Ids
    local_size: int


@dataclass(frozen=True)
class Channels:
    """All channels of a net, in all its states; they are numbered 0 to count - 1."""

    count: int
    units: Mapping[str, Ids]
    """Per InnerProduct, Convolution or Deconvolution layer, the channel of each unit or filter."""
    blobs: Mapping[BlobKey, BlobChannels]
    owners: Mapping[BlobKey, BlobKey]
    """Per blob with a ``param { name }``, the first blob of that name, whose values it has."""
    readers: Mapping[str, Ids]
    """Per layer with weights, the channels that these read."""
    fixed: Mapping[int, str]
    """Channels that cannot be deleted, each with the reason: the end of a sentence that begins
    with the layer."""
    groupings: tuple[Grouping, ...]
    group_of: Mapping[str, Ids]
    """Per Convolution with one input channel a group, the channel of each group."""
    slices: Mapping[str, tuple[Ids, ...]]
    """Per Slice layer along the channel axis, the channels of each top."""
    reshapes: Mapping[str, Ids]
    """Per Reshape layer whose definition counts the channels of its top, these."""
    lrn: tuple[LrnWindow, ...]


@dataclass(frozen=True)
class Flow:
    """The channels along an axis of a blob on its way through the net."""

    ids: Ids
    is_flat: bool = False
    """Each channel takes several indices in a row; how many, the prototxt does not tell."""
    axis: int = 1


class ChannelTrace:
    """Collects what the rules of `net.channel_rules` find, layer by layer."""

    def __init__(self, net: NetParameter, model: Caffemodel | None) -> None:
        self._parent: list[int] = []
        self._units: dict[str, Ids] = {}
        self._fixed: dict[int, str] = {}
        self._bound: dict[BlobKey, BlobChannels] = {}
        self._blobs: dict[BlobKey, BlobChannels] = {}
        self._readers: dict[str, list[Ids]] = {}
        self._groupings: list[Grouping] = []
        self._group_of: dict[str, Ids] = {}
        self._slices: dict[str, tuple[Ids, ...]] = {}
        self._reshapes: dict[str, Ids] = {}
        self._lrn: list[LrnWindow] = []
        self._owners = blob_owners(net.layer)
        self._shapes: dict[BlobKey, Shape] = (
            {key: blob.shape for key, blob in model.blobs()} if model else {}
        )

    def param_shape(self, layer: str, index: int, inferred: Sequence[Shape]) -> Shape | None:
        """Return the shape of a parameter blob: the model's, else the inferred one, if any."""
        own = self._shapes.get((layer, index))
        if own is None and index < len(inferred):
            own = inferred[index]
        return own

    def new(self, count: int) -> Ids:
        """Return ``count`` new channels."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def units(self, layer: str, count: int) -> Ids:
        """Return the channels that a layer makes: the same in every state.

        Raises:
            SurgeryError: There are none, or the layer is defined twice with different num_output.
        """
        if count < 1:
            raise SurgeryError(f"layer '{layer}': num_output is {count}; it has to be 1 or more")
        ids = self._units.get(layer)
        if ids is None:
            ids = self._units[layer] = self.new(count)
        if len(ids) != count:
            raise SurgeryError(
                f"layer '{layer}' is defined twice, with num_output {len(ids)} and {count}; "
                "Caffe shares its weights by name, so both must be the same"
            )
        return ids

    def _find(self, atom: int) -> int:
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def unite(self, one: Ids, other: Ids) -> None:
        """Make one channel of each pair (both of one shape)."""
        for left, right in zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True):
            low, high = sorted((self._find(left), self._find(right)))
            self._parent[high] = low

    def fix(self, ids: Ids, reason: str) -> None:
        """Keep channels from being deleted."""
        for atom in ids.reshape(-1).tolist():
            self._fixed.setdefault(atom, reason)

    def all_fixed(self, ids: Ids) -> bool:
        """Tell whether all of these are known to stay by now."""
        fixed = {self._find(atom) for atom in self._fixed}
        return all(self._find(atom) in fixed for atom in ids.reshape(-1).tolist())

    def read(self, layer: str, ids: Ids) -> None:
        """Note that the weights of a layer read these channels."""
        self._readers.setdefault(layer, []).append(ids)

    def group(self, layer: str, ids: Ids) -> None:
        """Note channels, shape (group, n), of which equally many must stay in each group."""
        self._groupings.append(Grouping(layer, ids))

    def group_by(self, layer: str, ids: Ids) -> None:
        """Note the channels that give a Convolution its groups, one each."""
        self._group_of[layer] = ids

    def slice(self, layer: str, tops: tuple[Ids, ...]) -> None:
        """Note how a Slice layer deals out channels."""
        self._slices[layer] = tops

    def reshape(self, layer: str, ids: Ids) -> None:
        """Note the channels that the definition of a Reshape layer counts."""
        self._reshapes[layer] = ids

    def lrn(self, layer: str, ids: Ids, local_size: int) -> None:
        """Note a sum over neighbouring channels."""
        self._lrn.append(LrnWindow(layer, ids, local_size))

    def bind(self, layer: str, index: int, blob: BlobChannels) -> None:
        """Say which channels the axes of a parameter blob belong to.

        Layers that share the blob, and the same layer in another state, must agree: their channels
        become one.

        Raises:
            SurgeryError: The caffemodel's blob has another shape than the net says.
        """
        self._require_shape(layer, index, blob)
        self._blobs[layer, index] = blob
        owner = self._owners.get((layer, index), (layer, index))
        earlier = self._bound.setdefault(owner, blob)
        if earlier is blob:
            return
        agree = len(earlier.axes) == len(blob.axes)
        for one, other in zip(earlier.axes, blob.axes, strict=agree):
            if one is None and other is None:
                continue
            if agree and one is not None and other is not None and one.shape == other.shape:
                self.unite(one, other)
                continue
            for ids in (one, other):
                if ids is not None:
                    self.fix(
                        ids,
                        f"shares parameters of layer '{layer}' that have other channels "
                        "elsewhere; leave it out with --layers",
                    )

    def _require_shape(self, layer: str, index: int, blob: BlobChannels) -> None:
        shape = self._shapes.get((layer, index))
        if shape is None:
            return
        expected = tuple(
            extent if ids is None else ids.shape[-1]
            for ids, extent in zip(blob.axes, shape, strict=False)
        )
        if len(blob.axes) != len(shape) or expected != shape:
            by_net = "x".join("?" if ids is None else str(ids.shape[-1]) for ids in blob.axes)
            raise SurgeryError(
                f"layer '{layer}', blob {index}: the net says {by_net}, the caffemodel holds "
                f"{'x'.join(map(str, shape))}; they belong to different nets"
            )

    def finish(self) -> Channels:
        """Number the channels and return what was found."""
        roots = np.array([self._find(atom) for atom in range(len(self._parent))], np.int64)
        used, number = np.unique(roots, return_inverse=True)
        number = number.astype(np.int64)
        readers = {
            name: np.unique(number[np.concatenate(parts)]) for name, parts in self._readers.items()
        }
        read = np.concatenate([*readers.values(), np.empty(0, np.int64)])
        for ids in self._units.values():
            self.fix(
                ids[~np.isin(number[ids], read)],
                "is an output layer: no layer with weights reads its units, and they are never "
                "pruned",
            )
        return Channels(
            count=len(used),
            units={name: number[ids] for name, ids in self._units.items()},
            blobs={
                key: BlobChannels(
                    tuple(None if ids is None else number[ids] for ids in blob.axes), blob.reads
                )
                for key, blob in self._blobs.items()
            },
            owners=self._owners,
            readers=readers,
            fixed={int(number[atom]): reason for atom, reason in reversed(self._fixed.items())},
            groupings=tuple(Grouping(name, number[ids]) for name, ids in self._groupings),
            group_of={name: number[ids] for name, ids in self._group_of.items()},
            slices={
                name: tuple(number[ids] for ids in tops) for name, tops in self._slices.items()
            },
            reshapes={name: number[ids] for name, ids in self._reshapes.items()},
            lrn=tuple(LrnWindow(name, number[ids], size) for name, ids, size in self._lrn),
        )
