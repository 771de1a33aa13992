"""The same job with other roundings: what no engine can be expected to stay below."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt

__all__ = ["rounded_otherwise"]


def rounded_otherwise(
    request: TrainRequest, weights: Path, folder: Path, number: int
) -> TrainRequest:
    """Return a job that differs from ``request`` by roundings only.

    Each weight but 0 is moved to the next float32, up or down. That alone does not move gradients
    that hardly depend on the weights, such as those of scores near 0, where sums over a batch
    cancel; so the loss weights are moved as well, by which every term of a gradient is rounded
    anew in each iteration.

    Args:
        request: The job.
        weights: The caffemodel that it begins from.
        folder: Where the new caffemodel and net are written; made when missing.
        number: Decides the roundings, from 0 on. Each odd one moves everything the other way than
            the one before: what one leaves on its side of a corner, the other takes across.

    Raises:
        PruneError: Net or weights cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start, net_path = folder / "start.caffemodel", folder / "rounded.prototxt"
    random = np.random.default_rng(number // 2)
    way = -1.0 if number % 2 else 1.0
    model = read_caffemodel(weights)
    write_caffemodel(
        start, model.with_blobs({key: _moved(blob, way, random) for key, blob in model.blobs()})
    )
    net = read_net(request.net or net_of_solver(request.solver))
    _move_loss_weights(net, way * (number // 2 + 1))
    write_prototxt(net_path, net)
    return replace(request, weights=start, net=net_path)


def _moved(blob: Blob, way: float, random: np.random.Generator) -> Blob:
    up = way * np.inf
    ways = np.where(random.random(blob.shape) < 0.5, -up, up).astype(np.float32)
    return np.where(blob == 0, blob, np.nextafter(blob, ways))


def _move_loss_weights(net: NetParameter, steps: float) -> None:
    factor = 1 + steps * float(np.finfo(np.float32).eps)
    for layer in net.layer:
        weights = loss_weights(layer)
        if any(weights):
            layer.loss_weight[:] = [weight * factor for weight in weights]
