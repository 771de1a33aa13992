"""Through which layers of a net a gradient flows (`Net::Init` of ``src/caffe/net.cpp``)."""

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.graph import NetGraph, Top

__all__ = ["GradientFlow"]

_BIAS_UNLESS_TOLD = frozenset({"Convolution", "Deconvolution", "Embed", "InnerProduct"})
_LEARNED = _BIAS_UNLESS_TOLD | {"Bias", "LSTM", "PReLU", "Parameter", "RNN", "Scale"}


class GradientFlow:
    """What of a net is back-propagated.

    Args:
        graph: The TRAIN net.
        everywhere: ``force_backward`` of the net.
    """

    def __init__(self, graph: NetGraph, *, everywhere: bool = False) -> None:
        self._graph = graph
        losses = [place for place, layer in enumerate(graph.layers) if _is_loss(layer)]
        self._under_loss = graph.ancestors(losses)
        self._wanted: set[Top] = set()
        for place, layer in enumerate(graph.layers):
            below = everywhere or any(
                self._wants(place, number) for number in range(len(layer.bottom))
            )
            if below or _learns(layer):
                self._wanted |= {Top(place, number) for number in range(len(layer.top))}

    def _wants(self, place: int, number: int) -> bool:
        told = self._graph.layers[place].propagate_down
        if told:
            return number < len(told) and told[number]
        return self._graph.bottoms[place][number] in self._wanted

    def reaches(self, place: int) -> bool:
        """Whether the layer's backward pass computes something that a loss asks for."""
        layer = self._graph.layers[place]
        return place in self._under_loss and (
            _learns(layer) or any(self._wants(place, number) for number in range(len(layer.bottom)))
        )


def _is_loss(layer: LayerParameter) -> bool:
    if layer.loss_weight:
        return any(layer.loss_weight)
    return layer.type.endswith("Loss")


def _learns(layer: LayerParameter) -> bool:
    """Whether a parameter of the layer has a learning rate."""
    if layer.type not in _LEARNED:
        return False
    return any(param.lr_mult for param in layer.param) or len(layer.param) < _parameters(layer)


def _parameters(layer: LayerParameter) -> int:
    """How many parameters a layer has at least."""
    if layer.type in {"Convolution", "Deconvolution"}:
        return 1 + layer.convolution_param.bias_term
    if layer.type == "Embed":
        return 1 + layer.embed_param.bias_term
    if layer.type == "InnerProduct":
        return 1 + layer.inner_product_param.bias_term
    return 1
