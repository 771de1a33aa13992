"""Gradients that Caffe's layers do not compute: it ends the process where one is asked for."""

from collections.abc import Sequence

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.pycaffe.errors import CheckError

__all__ = ["require_gradients"]

_NONE_AT_ALL = {
    "Accuracy": "accuracy_layer.hpp",
    "ArgMax": "argmax_layer.hpp",
    "Threshold": "threshold_layer.hpp",
}

_LABELS = {1: "Layer cannot backpropagate to label inputs."}
_SEQUENCES = {1: "Cannot backpropagate to sequence indicators."}
_NOT_TO = {
    "BatchReindex": {1: "Cannot backprop to index."},
    "Embed": {0: "Can't backpropagate to EmbedLayer input."},
    "HingeLoss": _LABELS,
    "InfogainLoss": _LABELS | {2: "Layer cannot backpropagate to infogain inputs."},
    "LSTM": _SEQUENCES,
    "MultinomialLogisticLoss": _LABELS,
    "RNN": _SEQUENCES,
    "SigmoidCrossEntropyLoss": _LABELS,
    "SoftmaxWithLoss": _LABELS,
}
"""What Caffe says by the number of the bottom."""


def require_gradients(layer: LayerParameter, propagate: Sequence[bool]) -> None:
    """Refuse a backward pass that Caffe's layer does not have.

    Args:
        layer: The layer.
        propagate: Which bottoms' gradients are wanted.

    Raises:
        CheckError: It has none for one of them (``NOT_IMPLEMENTED`` and checks of the layers'
            ``Backward_cpu``).
    """
    if layer.type in _NONE_AT_ALL and any(propagate):
        raise CheckError(
            f"layer '{layer.name}' ({layer.type}) has no backward pass ({_NONE_AT_ALL[layer.type]}:"
            " Not Implemented Yet); the net says force_backward: leave that or the layer out"
        )
    for number, sentence in _NOT_TO.get(layer.type, {}).items():
        if number < len(propagate) and propagate[number]:
            raise CheckError(
                f"layer '{layer.name}' ({layer.type}): {sentence} Its bottom "
                f"'{layer.bottom[number]}' depends on what is learnt"
            )
