"""The values that a net's blobs begin with: its own, or each layer's fillers in its order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.fillers import fill
from pycaffe_prune.engines.torch.parameters import Parameters
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.blobs import read_blob
from pycaffe_prune.formats.caffe_pb2 import (
    BlobProto,
    ConvolutionParameter,
    EmbedParameter,
    FillerParameter,
    InnerProductParameter,
    LayerParameter,
    PReLUParameter,
    ScaleParameter,
)
from pycaffe_prune.formats.caffemodel import naming_blob

__all__ = ["fill_parameters"]


def fill_parameters(layers: Sequence[LayerParameter], parameters: Parameters, seed: int) -> None:
    """Fill all learnable blobs.

    Those of a layer whose definition holds ``blobs`` get these values (`Layer` of
    `include/caffe/layer.hpp`); of layers that share a blob the first one's count.

    The values follow the distributions of Caffe's fillers; they are not the numbers that Caffe
    draws from the same seed (its generator is Boost's).

    Args:
        layers: The net's layers.
        parameters: Their blobs; `Parameters.data` is written to.
        seed: Same seed, same values, on every device.

    Raises:
        FormatError: A filler is not known or does not fit its blob, or values that the net holds
            do not.
    """
    generator = torch.Generator().manual_seed(seed)
    by_name = {layer.name: layer for layer in layers}
    for blob in parameters.blobs:
        name, index = blob.key
        layer, values = by_name[name], parameters.view(parameters.data, blob.key)
        with naming_blob(*blob.key):
            if index < len(layer.blobs):
                values.copy_(_held(layer.blobs[index], tuple(values.shape)))
            else:
                fill(values, _filler(layer, index), generator)


def _held(blob: BlobProto, shape: Shape) -> Tensor:
    """The values of a blob in a net; an old form has 4 axes, the first ones of which are 1."""
    content = blob.SerializeToString()
    values, _ = read_blob(memoryview(content), 0, len(content))
    lacking = len(shape) - values.ndim
    if (1,) * max(lacking, 0) + values.shape != (1,) * max(-lacking, 0) + shape:
        raise FormatError(
            f"the net holds values of shape {extents(values.shape)} for it, and it is "
            f"{extents(shape)}; correct the net, or take its blobs out"
        )
    return torch.from_numpy(values.reshape(shape).copy())


def _filler(layer: LayerParameter, index: int) -> FillerParameter:
    """The filler of one blob, with the defaults of `src/caffe/layers`."""
    weighted: ConvolutionParameter | EmbedParameter | InnerProductParameter
    match layer.type:
        case "Convolution" | "Deconvolution":
            weighted = layer.convolution_param
        case "InnerProduct":
            weighted = layer.inner_product_param
        case "Embed":
            weighted = layer.embed_param
        case "LSTM" | "RNN":
            return _of_recurrent(layer, index)
        case "Scale":
            if index == 1 or len(layer.bottom) > 1:
                return layer.scale_param.bias_filler
            return _stated(layer.scale_param, 1)
        case "Bias":
            return layer.bias_param.filler
        case "PReLU":
            return _stated(layer.prelu_param, 0.25)
        case _:
            return FillerParameter()  # statistics of BatchNorm, Parameter: zeros
    return weighted.bias_filler if index else weighted.weight_filler


def _of_recurrent(layer: LayerParameter, index: int) -> FillerParameter:
    """Blob 1 is the bias, and of an RNN the last one too, behind the weights of the output."""
    states = {"LSTM": 2, "RNN": 1}[layer.type] if layer.recurrent_param.expose_hidden else 0
    last = 5 if len(layer.bottom) > 2 + states else 4
    if index == 1 or (layer.type == "RNN" and index == last):
        return layer.recurrent_param.bias_filler
    return layer.recurrent_param.weight_filler


def _stated(settings: PReLUParameter | ScaleParameter, default: float) -> FillerParameter:
    if settings.HasField("filler"):
        return settings.filler
    return FillerParameter(type="constant", value=default)
