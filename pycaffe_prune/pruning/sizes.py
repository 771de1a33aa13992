"""What a net with its weights takes: parameters, multiply-accumulates, units, and bytes on disk.

Connection pruning leaves zeros, which stock Caffe stores and multiplies all the same. What it is
worth without code for sparse weights is what is left when its dead units are deleted
(`pruning.dead`), so both are counted: the net as it is, and the one without dead units.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from pydantic import BaseModel, ConfigDict

from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, caffemodel_size
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.compressed.file import compressed_size
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.sparse import sparse_size
from pycaffe_prune.net.counts import are_weights, uses_of_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from pycaffe_prune.pruning.dead import delete_dead

__all__ = ["STORAGE_FORMS", "ModelSizes", "NetSize", "model_sizes", "net_size"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})
_NO_HASHES: Mapping[BlobKey, Hash] = MappingProxyType({})

STORAGE_FORMS: Mapping[str, Callable[[Caffemodel], int]] = MappingProxyType(
    {"caffemodel": caffemodel_size, "sparse": sparse_size}
)
"""The forms in which weights are stored, each with what tells its bytes without writing it."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetSize(_Model):
    """One net with its weights. A parameter that layers share counts once."""

    parameters: int
    """Values of all blobs of the layers that the TEST net has: weights, biases, statistics."""
    weights: int
    """Of these the learned factors, zeros included (`net.counts`)."""
    non_zero_weights: int
    macs: int | None
    """Multiply-accumulates for one image as Caffe does them, with zeros too; None: not known, since
    the prototxt does not tell the size of the images."""
    non_zero_macs: int | None
    """Those with weights that are not zero: needs arithmetic that leaves zeros out."""
    stored_bytes: dict[str, int]
    """Size of a whole file, by form (`STORAGE_FORMS`), of the layers with blobs alone. Caffe saves
    the others too, but needs none of them; a Data layer's tells where the images lay."""
    units: dict[str, int]
    """Of each layer with units or filters; empty where they could not be followed."""

    @property
    def kept_parameters(self) -> int:
        """Parameters without the weights that are zero."""
        return self.parameters - self.weights + self.non_zero_weights


class ModelSizes(_Model):
    """A net as it is, and what is left of it without its dead units."""

    whole: NetSize
    alive: NetSize | None
    """After `pruning.dead.delete_dead`, which changes no output; None: it was refused."""
    alive_problem: str | None = None
    """Why it was refused."""


def model_sizes(
    net: NetParameter,
    model: Caffemodel,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
    hashed: Mapping[BlobKey, Hash] = _NO_HASHES,
) -> ModelSizes:
    """Measure a net and its weights, with and without dead units; nothing is written.

    Here the compressed form is measured too, which takes longer than the others.

    Args:
        net: The definition; its own level and stages choose the layers, with the phase TEST.
        model: Its weights, with zeros where connections were pruned. Layers that the net lacks are
            part of the stored bytes alone.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.
        hashed: The blobs that the compressed form has the buckets of.

    Raises:
        SurgeryError: Net and weights do not fit together, or the net contradicts itself.
        FormatError: The caffemodel lacks a layer, or a blob is not hashed as it is told to be.
    """
    require_fitting(net, model, inputs)
    try:
        found = delete_dead(net, model)
    except PruneError as error:
        whole = _compressed_too(net_size(net, model, inputs), model, hashed)
        return ModelSizes(whole=whole, alive=None, alive_problem=str(error))
    units = {name: keep.size for name, keep in found.kept.items()}
    whole = _compressed_too(net_size(net, model, inputs, units), model, hashed)
    left = {name: int(keep.sum()) for name, keep in found.kept.items()}
    if left == units:
        return ModelSizes(whole=whole, alive=whole)
    alive = net_size(found.net, found.model, inputs, left)
    return ModelSizes(whole=whole, alive=_compressed_too(alive, found.model, _NO_HASHES))


def _compressed_too(size: NetSize, model: Caffemodel, hashed: Mapping[BlobKey, Hash]) -> NetSize:
    stored = compressed_size(_with_blobs_alone(model), hashed)
    return size.model_copy(update={"stored_bytes": {**size.stored_bytes, "compressed": stored}})


def _with_blobs_alone(model: Caffemodel) -> Caffemodel:
    return replace(model, layers=tuple(layer for layer in model.layers if layer.blobs))


@dataclass(frozen=True)
class _Counted:
    """One parameter blob of one layer."""

    owner: BlobKey
    """The first blob that is the same memory in Caffe."""
    size: int
    non_zeros: int
    is_weight: bool
    use: int | None
    """How often each value is multiplied for one image; None: not known."""


def net_size(
    net: NetParameter,
    model: Caffemodel,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
    units: Mapping[str, int] = MappingProxyType({}),
) -> NetSize:
    """Measure a net and weights that fit to it, as they are.

    Args:
        net: As for `model_sizes`.
        model: Its weights.
        inputs: As for `model_sizes`.
        units: Of each layer, where they are known.
    """
    layers = layers_in_state(net, NetState.of(net, TEST))
    owners, held = blob_owners(layers), dict(model.blobs())
    stored = _with_blobs_alone(model)
    counted = [
        one
        for layer, shapes in zip(layers, infer_shapes(layers, inputs), strict=True)
        for one in _counted(layer, shapes, held, owners)
    ]
    once = {one.owner: one for one in reversed(counted)}.values()
    return NetSize(
        parameters=sum(one.size for one in once),
        weights=sum(one.size for one in once if one.is_weight),
        non_zero_weights=sum(one.non_zeros for one in once if one.is_weight),
        macs=_sum(one.use and one.use * one.size for one in counted),
        non_zero_macs=_sum(one.use and one.use * one.non_zeros for one in counted),
        stored_bytes={name: size_of(stored) for name, size_of in STORAGE_FORMS.items()},
        units=dict(units),
    )


def _counted(
    layer: LayerParameter,
    shapes: LayerShapes,
    held: Mapping[BlobKey, Blob],
    owners: Mapping[BlobKey, BlobKey],
) -> list[_Counted]:
    own = sum(name == layer.name for name, _ in held)
    keys = [(layer.name, index) for index in range(max(own, len(shapes.params)))]
    # HDF5 files have a shared blob at its owner alone.
    blobs = [held[key] if key in held else held[owners[key]] for key in keys]
    uses = uses_of_weights(layer, shapes) or [None] * len(keys)
    are = are_weights(layer, [blob.shape for blob in blobs])
    return [
        _Counted(owners.get(key, key), blob.size, int(np.count_nonzero(blob)), is_weight, use)
        for key, blob, is_weight, use in zip(keys, blobs, are, uses, strict=True)
    ]


def _sum(parts: Iterable[int | None]) -> int | None:
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)
