"""Which tops of a layer add to the loss of a net, and by how much."""

from collections.abc import Iterable, Iterator

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["loss_weights", "weighted_losses"]


def loss_weights(layer: LayerParameter) -> tuple[float, ...]:
    """Return the weight of each top in the loss (`Layer::SetLossWeights`); 0: none.

    A loss layer that states none has 1 for its first top.

    Raises:
        SurgeryError: It states weights that are neither none nor one a top.
    """
    weights = tuple(layer.loss_weight)
    if not weights:
        first = 1.0 if layer.type.endswith("Loss") else 0.0
        weights = (first, *[0.0] * (len(layer.top) - 1))[: len(layer.top)]
    if len(weights) != len(layer.top):
        raise SurgeryError(
            f"layer '{layer.name}' ({layer.type}) has {len(weights)} loss_weight for "
            f"{len(layer.top)} tops; give none, or one for each top"
        )
    return weights


def weighted_losses(layers: Iterable[LayerParameter]) -> Iterator[tuple[str, float]]:
    """Yield the blobs that add to the loss of a net, with their weights.

    Raises:
        SurgeryError: As `loss_weights`.
    """
    for layer in layers:
        for top, weight in zip(layer.top, loss_weights(layer), strict=True):
            if weight:
                yield top, weight
