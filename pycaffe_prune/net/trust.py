"""Which layers of a stranger's net an engine may be given: those of types known to be harmless.

A prototxt is data to whoever gets it, and a program to Caffe: a layer may run code or write files
with the rights of whoever trains it. So there is a list of what may pass, and not of what may not.
"""

from collections.abc import Iterator
from pathlib import Path

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.upgrade import upgrade_net

__all__ = ["HARMLESS", "refuse_untrusted", "refuse_untrusted_nets", "untrusted_layers"]

# fmt: off
HARMLESS = frozenset(
    {
        # all of BVLC Caffe's but HDF5Output and Python
        "AbsVal", "Accuracy", "ArgMax", "BNLL", "BatchNorm", "BatchReindex", "Bias", "Clip",
        "Concat", "ContrastiveLoss", "Convolution", "Crop", "Data", "Deconvolution", "Dropout",
        "DummyData", "ELU", "Eltwise", "Embed", "EuclideanLoss", "Exp", "Filter", "Flatten",
        "HDF5Data", "HingeLoss", "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "Input",
        "LRN", "LSTM", "LSTMUnit", "Log", "MVN", "MemoryData", "MultinomialLogisticLoss", "PReLU",
        "Parameter", "Pooling", "Power", "RNN", "ReLU", "Reduction", "Reshape", "SPP", "Scale",
        "Sigmoid", "SigmoidCrossEntropyLoss", "Silence", "Slice", "Softmax", "SoftmaxWithLoss",
        "Split", "Swish", "TanH", "Threshold", "Tile", "WindowData",
        # those of common forks that compute, and no more (`net.fork_shapes`)
        "BN", "CConvolution", "CInnerProduct", "ConvolutionDepthwise", "DepthwiseConvolution",
        "DetectionEvaluate", "DetectionOutput", "Interp", "MultiBoxLoss", "Normalize",
        "PSROIPooling", "Permute", "PriorBox", "ROIPooling", "ReLU6", "ShuffleChannel",
        "SmoothL1Loss", "Upsample",
    }
)
"""Layer types that read, compute and no more."""
# fmt: on

_REMEDY = "--trust lets it pass, for files that are your own (docs/trust.md)"


def untrusted_layers(net: NetParameter) -> Iterator[str]:
    """Yield of each layer that is not known to be harmless what it is, as the rest of a sentence.

    Args:
        net: In the V2 form; the layers of all its states count.
    """
    for layer in net.layer:
        if layer.type not in HARMLESS:
            yield f"layer '{layer.name}' {_told(layer)}"


def _told(layer: LayerParameter) -> str:
    if layer.type == "Python":
        return f"is a Python layer that runs the module '{layer.python_param.module}'"
    if layer.type == "HDF5Output":
        file = layer.hdf5_output_param.file_name
        return f"is an HDF5Output layer that writes the file '{file}'"
    return (
        f"is of the type '{layer.type}', which stock Caffe does not have, so that what it does is "
        "not known"
    )


def refuse_untrusted(net: NetParameter, source: Path) -> None:
    """Refuse a net with a layer of another type than `HARMLESS`, in whatever state it is used.

    Args:
        net: In the V2 form.
        source: Where it was read from.

    Raises:
        FormatError: There is one; the sentence names the layer and what it would do.
    """
    for told in untrusted_layers(net):
        raise FormatError(f"{source}: {told}; {_REMEDY}")


def refuse_untrusted_nets(solver: SolverParameter, source: Path) -> None:
    """Do the same for all nets that a solver holds, used or not.

    Raises:
        FormatError: As `refuse_untrusted`, or one of them cannot be upgraded.
    """
    held = {
        "net_param": [solver.net_param],
        "train_net_param": [solver.train_net_param],
        "test_net_param": solver.test_net_param,
    }
    for field, nets in held.items():
        for net in nets:
            try:
                upgraded = upgrade_net(net)
            except FormatError as error:
                raise FormatError(f"{source}: {field} {error}") from error
            for told in untrusted_layers(upgraded):
                raise FormatError(f"{source}: in its {field}, {told}; {_REMEDY}")
