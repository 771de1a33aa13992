"""Which layers of a net a file of weights fills, and which it leaves as their fillers made them."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.forks import STOCK_TYPES

__all__ = ["LEARNING", "Copied", "copied_layers", "new_layers"]

LEARNING = frozenset(
    {
        "BatchNorm", "Bias", "Convolution", "Deconvolution", "Embed", "InnerProduct", "LSTM",
        "PReLU", "Parameter", "RNN", "Scale", "BN", "Normalize", *STOCK_TYPES,
    }
)  # fmt: skip
"""Types of the layers that hold weights or other parameters."""


@dataclass(frozen=True)
class Copied:
    """What Caffe does with the layers of one file (`Net::CopyTrainedLayersFrom`)."""

    copied: tuple[str, ...]
    """Layers of the net that get their blobs, in the file's order."""
    unused: tuple[str, ...]
    """Layers of the file with blobs, of whose names the net has none."""


def copied_layers(layers: Iterable[LayerParameter], model: Caffemodel) -> Copied:
    """Return which layers of ``model`` a net copies, by name as `src/caffe/net.cpp` does.

    Args:
        layers: Those of one state of the net.
        model: The weights.
    """
    names = {layer.name for layer in layers}
    held = [layer.name for layer in model.layers if layer.blobs]
    return Copied(
        tuple(name for name in held if name in names),
        tuple(name for name in held if name not in names),
    )


def new_layers(layers: Iterable[LayerParameter], copied: Container[str]) -> tuple[str, ...]:
    """Return the layers with parameters that their fillers fill: those that no file does.

    Args:
        layers: Those of one state of the net.
        copied: The layers that are copied.
    """
    owned: set[str] = set()
    found = []
    for layer in layers:
        shares = [param.name for param in layer.param if param.name]
        is_shared = bool(shares) and owned.issuperset(shares) and len(shares) == len(layer.param)
        owned.update(shares)
        if layer.type in LEARNING and layer.name not in copied and not is_shared:
            found.append(layer.name)
    return tuple(found)
