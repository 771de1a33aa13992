"""What a file of weights holds: counts of weights, non-zeros and multiply-accumulates per blob."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydantic import BaseModel, ConfigDict

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.counts import uses_of_weights
from pycaffe_prune.net.shapes import Shape, infer_shapes

__all__ = ["BlobSummary", "ModelSummary", "summarise"]


_Uses = tuple[int, ...] | None
"""As `uses_of_weights` returns them."""

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class BlobSummary(_Model):
    """One blob."""

    layer: str
    type: str
    index: int
    """0 weight, 1 bias."""
    shape: tuple[int, ...]
    count: int
    nonzero: int
    shared_with: str | None
    """The blob, as ``layer/index``, whose values these are by ``param { name }``; None: its own."""
    finite: bool
    minimum: float
    maximum: float
    std: float
    """Population standard deviation over all values, in float64."""
    macs: int | None
    """Multiply-accumulates with these values for one image; None: not known."""
    macs_nonzero: int | None
    """Those of them whose value is not zero."""


class ModelSummary(_Model):
    """One file of weights."""

    path: str
    name: str
    bytes: int
    parameters: int
    """Values of all blobs; what layers share by ``param { name }`` counts once."""
    nonzero: int
    macs: int | None
    """Sum over the blobs; None: not known, as the layers around the weights are not."""
    macs_nonzero: int | None
    blobs: tuple[BlobSummary, ...]


def summarise(
    path: Path,
    layers: Sequence[LayerParameter] | None = None,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> ModelSummary:
    """Count and measure every blob of a file of weights.

    Args:
        path: A file of any form that `read_weights` knows.
        layers: The net that the weights are used in (one state of it), for the
            multiply-accumulates; None: the definitions in the file itself, if they tell enough.
        inputs: Shapes of blobs that the definitions do not tell, as for `infer_shapes`.

    Raises:
        FormatError: The file is missing, damaged, or holds no weights.
        SurgeryError: ``layers`` contradict themselves.
    """
    model = read_weights(path)
    own = [layer.param for layer in model.layers]
    uses = _own_uses(own, inputs) if layers is None else _uses(layers, inputs)
    owners = _owners_held(model, own if layers is None else layers)
    blobs = tuple(
        _summary(
            layer,
            index,
            blob,
            None if uses is None else uses.get(layer.name, ()),
            owners.get((layer.name, index)),
        )
        for layer in model.layers
        for index, blob in enumerate(layer.blobs)
    )
    counted = [blob for blob in blobs if blob.shared_with is None]
    return ModelSummary(
        path=str(path),
        name=model.net.name,
        bytes=path.stat().st_size,
        parameters=sum(blob.count for blob in counted),
        nonzero=sum(blob.nonzero for blob in counted),
        macs=_sum([blob.macs for blob in blobs]),
        macs_nonzero=_sum([blob.macs_nonzero for blob in blobs]),
        blobs=blobs,
    )


def _uses(layers: Sequence[LayerParameter], inputs: Mapping[str, Shape]) -> dict[str, _Uses]:
    shapes = infer_shapes(layers, inputs)
    return {
        layer.name: uses_of_weights(layer, around) if around.params else None
        for layer, around in zip(layers, shapes, strict=True)
    }


def _owners_held(model: Caffemodel, layers: Sequence[LayerParameter]) -> dict[BlobKey, str]:
    """For each blob that is another one's, that one, if the file holds it too."""
    held = {key for key, _ in model.blobs()}
    return {
        key: f"{owner[0]}/{owner[1]}"
        for key, owner in blob_owners(layers).items()
        if owner != key and owner in held
    }


def _own_uses(
    layers: Sequence[LayerParameter], inputs: Mapping[str, Shape]
) -> dict[str, _Uses] | None:
    try:
        return _uses(layers, inputs)
    except SurgeryError:  # a caffemodel may say anything of its layers: Caffe does not read it
        return None


def _summary(
    layer: Layer, index: int, blob: Blob, of_layer: _Uses, shared_with: str | None
) -> BlobSummary:
    sound = bool(np.isfinite(blob).all())
    measurable = sound and blob.size > 0
    nonzero = int(np.count_nonzero(blob))
    uses = None if of_layer is None else (*of_layer, 0)[min(index, len(of_layer))]
    return BlobSummary(
        layer=layer.name,
        type=layer.type,
        index=index,
        shape=blob.shape,
        count=blob.size,
        nonzero=nonzero,
        shared_with=shared_with,
        finite=sound,
        minimum=float(blob.min()) if measurable else 0.0,
        maximum=float(blob.max()) if measurable else 0.0,
        std=float(blob.std(dtype=np.float64)) if measurable else 0.0,
        macs=None if uses is None else uses * blob.size,
        macs_nonzero=None if uses is None else uses * nonzero,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
