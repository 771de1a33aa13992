"""How what a layer reads varies together over training images (Denil et al. 2013's kernel)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.experiments.features.net_outputs import net_outputs
from pycaffe_prune.experiments.features.training_images import TrainingImages
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state

__all__ = ["input_covariance"]

_Array = NDArray[np.float64]


def input_covariance(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    layer: str,
    samples: NDArray[np.int64],
    images: TrainingImages,
    wanted: range,
    engine: Engine,
    *,
    trust: bool = False,
) -> tuple[_Array, _Array]:
    """Return the covariance of all inputs of an InnerProduct layer with some, and the variances.

    Args:
        net: In the V2 form.
        net_path: Where it was read from, for sentences.
        model: Its weights.
        layer: Of the TEST net.
        samples: Places of some of its inputs.
        images: The images that the net is trained on.
        wanted: Which of them.
        engine: What runs them through the TEST net.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Returns:
        Inputs x samples, and inputs; float64, over all images.

    Raises:
        EngineError: The engine failed.
        FormatError: As `net_outputs`.
        SurgeryError: The layer is no InnerProduct layer of that net, what it reads is written over
            later, or as `net_outputs`.
    """
    blob, inputs = _read_by(net, model, layer)
    count, sums, squares = 0, np.zeros(inputs), np.zeros(inputs)
    products = np.zeros((inputs, len(samples)))
    for values in _values(net, net_path, model, blob, images, wanted, engine, trust=trust):
        rows = values.reshape(-1, inputs).astype(np.float64)
        count += len(rows)
        sums += rows.sum(axis=0)
        squares += np.square(rows).sum(axis=0)
        products += rows.T @ rows[:, samples]
    means = sums / count
    covariance = products / count - np.outer(means, means[samples])
    return covariance, np.maximum(squares / count - np.square(means), 0)


def _read_by(net: NetParameter, model: Caffemodel, name: str) -> tuple[str, int]:
    """The blob that a layer reads, and how many values of it at once."""
    graph = NetGraph(layers_in_state(net, NetState.of(net, TEST)))
    for place, layer in enumerate(graph.layers):
        if layer.name != name:
            continue
        if layer.type != "InnerProduct":
            raise SurgeryError(
                f"layer '{name}' ({layer.type}) reads parts of a blob; the covariance of inputs is "
                "for InnerProduct layers"
            )
        blob, source = layer.bottom[0], graph.bottoms[place][0]
        latest = [top for top in graph.tops() if graph.layers[top.layer].top[top.number] == blob]
        if source != latest[-1]:
            raise SurgeryError(
                f"layer '{name}' reads the blob '{blob}' before layer "
                f"'{graph.layers[latest[-1].layer].name}' writes it over; give that layer a top of "
                "its own"
            )
        shape = model.layer(name).blobs[0].shape
        return blob, shape[0 if layer.inner_product_param.transpose else 1]
    raise SurgeryError(f"the TEST net has no layer '{name}'")


def _values(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    blob: str,
    images: TrainingImages,
    wanted: range,
    engine: Engine,
    *,
    trust: bool,
) -> Iterator[NDArray[np.float32]]:
    if blob == images.data:
        for batch in images.batches(wanted.start, len(wanted), 1000):
            yield batch.images
    else:
        for (found,), _ in net_outputs(
            net, net_path, model, [blob], images, wanted, engine, trust=trust
        ):
            yield found
