"""Blobs of a trained net for its training images, batch by batch."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.experiments.features.training_images import TrainingImages
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.inference import inference_net, input_shapes
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = ["Outputs", "net_outputs"]

_AT_A_TIME = 2**28
"""Bytes of blobs that come out of one call of an engine."""

Outputs = tuple[list[NDArray[np.float32]], NDArray[np.int64]]
"""The blobs of a batch, images first, and the labels of its images."""


def net_outputs(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    blobs: Sequence[str],
    images: TrainingImages,
    wanted: range,
    engine: Engine,
    *,
    trust: bool = False,
) -> Iterator[Outputs]:
    """Run images through the TEST net and yield ``blobs`` for some at a time.

    Args:
        net: In the V2 form.
        net_path: Where it was read from, for sentences.
        model: Its weights.
        blobs: Names of blobs of the TEST net, their last versions.
        images: Where the images come from.
        wanted: Which of them.
        engine: What computes.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Raises:
        EngineError: The engine failed.
        FormatError: A layer computes as in training, or is not to be trusted.
        SurgeryError: There is no such blob, it depends on something else than the images, or
            weights or images do not fit.
    """
    inputs = input_shapes(net, blobs, {})
    if list(inputs) != [images.data]:
        raise SurgeryError(
            f"{net_path}: {', '.join(blobs)} depend on the data blobs {', '.join(inputs)}, and the "
            f"training images come in '{images.data}'"
        )
    part = inference_net(net, {images.data: (1, *images.shape)}, blobs)
    if not trust:
        refuse_untrusted(part, net_path)
    for layer in part.layer:
        refuse_unhonoured(layer, "features")
    require_fitting(part, model)
    size = _images_at_a_time(part, blobs)
    with temporary_folder() as folder:
        path, weights = folder / "net.prototxt", folder / "net.caffemodel"
        write_prototxt(path, part)
        write_caffemodel(weights, model)
        for batch in images.batches(wanted.start, len(wanted), size):
            found = engine.forward(path, weights, {images.data: batch.images}, blobs)
            yield found, batch.labels


def _images_at_a_time(net: NetParameter, blobs: Sequence[str]) -> int:
    """How many images give blobs of a size that memory bears; 1 where shapes are not known."""
    shapes = infer_shapes(list(net.layer))
    values = 0
    for layer, around in zip(net.layer, shapes, strict=True):
        for blob, shape in zip(layer.top, around.tops, strict=True):
            if shape is None:
                return 1
            values += math.prod(shape) * (1 + (blob in blobs))
    return max(1, _AT_A_TIME // (4 * values))
