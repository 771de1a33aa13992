"""Where Caffe ends the process in a backward pass: at bottoms that can have no gradient."""

from collections.abc import Mapping, Sequence

from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["stop_of"]

_LABELS = "its labels"
_STOPS: Mapping[str, Mapping[int, str]] = {
    "Accuracy": {0: "its scores", 1: _LABELS},
    "BatchReindex": {1: "its indices"},
    "Embed": {0: "its indices"},
    "Filter": {-1: "its selector"},
    "HingeLoss": {1: _LABELS},
    "InfogainLoss": {1: _LABELS, 2: "its matrix"},
    "LSTM": {1: "its indicators of sequences"},
    "MultinomialLogisticLoss": {1: _LABELS},
    "RNN": {1: "its indicators of sequences"},
    "SigmoidCrossEntropyLoss": {1: "its targets"},
    "SoftmaxWithLoss": {1: _LABELS},
}
"""Per type the bottoms, with what they are (the last one as -1)."""
_NO_DERIVATIVE = frozenset({"ArgMax", "Threshold"})


def stop_of(param: LayerParameter, propagate: Sequence[bool]) -> str | None:
    """Return why a layer has no backward pass, as a sentence; None: it has one.

    Args:
        param: The layer.
        propagate: Per bottom whether its gradient is to be computed.
    """
    told = f"layer '{param.name}' ({param.type})"
    if param.type in _NO_DERIVATIVE:
        return f"{told} has no backward pass: what it computes has no derivative"
    for number, what in _STOPS.get(param.type, {}).items():
        place = number % len(propagate)
        if number < len(propagate) and propagate[place]:
            return (
                f"{told} has no gradient for {what}, '{param.bottom[place]}'; leave the layer out "
                "of this net, or do without force_backward and say propagate_down: false for it"
            )
    return None
