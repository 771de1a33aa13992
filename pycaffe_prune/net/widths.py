"""A net with other numbers of units or filters."""

from collections.abc import Mapping

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter

__all__ = ["with_widths"]


def with_widths(net: NetParameter, widths: Mapping[str, int]) -> NetParameter:
    """Return the net with other numbers of units or filters in some layers, in all its states.

    Raises:
        SurgeryError: It has no InnerProduct, Convolution or Deconvolution layer of one of these
            names.
    """
    changed = NetParameter()
    changed.CopyFrom(net)
    missing = set(widths)
    for layer in changed.layer:
        if layer.name not in widths:
            continue
        if layer.type == "InnerProduct":
            layer.inner_product_param.num_output = widths[layer.name]
        elif layer.type in ("Convolution", "Deconvolution"):
            layer.convolution_param.num_output = widths[layer.name]
        else:
            continue
        missing.discard(layer.name)
    if missing:
        raise SurgeryError(
            "the net has no InnerProduct, Convolution or Deconvolution layer "
            f"'{min(missing)}', whose width could be told"
        )
    return changed
