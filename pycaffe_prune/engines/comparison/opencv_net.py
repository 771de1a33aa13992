"""OpenCV's own Caffe importer as a second judge: what a net computes, without Caffe.

`cv2.dnn.readNetFromCaffe` of OpenCV 4 (OpenCV 5 has dropped it) reads a net by code that shares
nothing with Caffe but the file formats. What it is given is a temporary pair in the form that it
understands: TEST layers only, V2, no legacy dimensions, and these settled, which it gets wrong:

- an LRN layer's missing settings, for which it has other defaults, and its ``k``, which it ignores
  (`modules/dnn/src/layers/lrn_layer.cpp`): refused unless 1;
- ``transpose`` of InnerProduct, which it ignores: the weights are transposed for it;
- ``concat_dim`` and ``slice_dim``, the former names of ``axis``, which it ignores;
- parameters that layers share by name: each gets its blob;
- a blob that is written in place, or one of several tops, which it cannot be asked for: an
  identity layer after it can; and it fails where nothing reads one of several tops.

Fusion of layers and Winograd convolution are off: they cost digits.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, PoolingParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields, carry
from pycaffe_prune.formats.forks import fork_part, is_known
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fork_forms import stock_form
from pycaffe_prune.net.inference import inference_net

__all__ = ["forward", "require_importer"]

_AFTER = "after "
_UNKNOWN = re.compile(r"Can't create layer \"(.*)\" of type \"(.*)\"")


def require_importer() -> None:
    """See that this OpenCV has the Caffe importer.

    Raises:
        EngineError: It has not.
    """
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise EngineError(
            f"OpenCV {cv2.__version__} has no Caffe importer; "
            "`pip install 'opencv-python-headless<5'` installs one that has"
        )


def forward(
    net_path: Path,
    weights: Path,
    inputs: Mapping[str, NDArray[np.float32]],
    outputs: Sequence[str],
) -> list[NDArray[np.float32]]:
    """Run ``inputs`` (blob name to array) through a TEST net and return the blobs ``outputs``.

    As `CaffeEngine.forward`, but layers that ``outputs`` do not depend on may be of any type, and
    nothing needs to be trusted: the importer runs no code of a net's and writes no file.

    Raises:
        EngineError: OpenCV does not know a layer, or refused the net, the weights or the inputs.
        FormatError: A file is damaged.
        SurgeryError: The net has no such blobs.
    """
    require_importer()
    net = read_net(net_path)
    part = inference_net(net, {name: array.shape for name, array in inputs.items()}, outputs)
    model = _for_importer(part, read_weights(weights))
    several = [top for layer in part.layer if len(layer.top) > 1 for top in layer.top]
    for name in dict.fromkeys((*outputs, *several)):
        part.layer.add(name=_AFTER + name, type="Power", bottom=[name], top=[_AFTER + name])
    with temporary_folder() as folder:
        prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
        write_prototxt(prototxt, part)
        write_caffemodel(caffemodel, model)
        with _one_sentence():
            importer = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
            importer.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
            importer.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
            importer.enableFusion(False)
            importer.enableWinograd(False)
            for name, array in inputs.items():
                importer.setInput(np.ascontiguousarray(array, np.float32), name)
            return [
                np.array(blob, np.float32)
                for blob in importer.forward([_AFTER + name for name in outputs])
            ]


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn what OpenCV throws into one error, and keep it from printing the same."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    except cv2.error as error:
        if unknown := _UNKNOWN.search(str(error)):
            raise _not_known(LayerParameter(name=unknown[1]), unknown[2]) from error
        raise EngineError(
            f"OpenCV's Caffe importer cannot run this net ({' '.join(str(error).split())})"
        ) from error
    finally:
        logging.setLogLevel(level)


def _not_known(layer: LayerParameter, what: str) -> EngineError:
    return EngineError(
        f"OpenCV's Caffe importer does not know layer '{layer.name}' ({what}); let the real Caffe "
        "judge this net"
    )


def _for_importer(part: NetParameter, model: Caffemodel) -> Caffemodel:
    """Settle in ``part`` what the importer misreads, and return the weights that go with it."""
    held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    shared: dict[str, Blob] = {}
    for layer in part.layer:
        for spec, blob in zip(layer.param, held.get(layer.name, ()), strict=False):
            if spec.name:
                shared[spec.name] = blob  # Caffe loads them one after the other: the last one stays
    layers: dict[str, Layer] = {}
    for layer in part.layer:
        _refuse_unread(layer)
        if layer.name in layers:
            raise EngineError(
                f"net '{part.name}' has two layers called '{layer.name}', which OpenCV's Caffe "
                "importer cannot tell apart; rename one"
            )
        blobs = _with_shared(layer, held.get(layer.name, ()), shared)
        settle = _SETTLE.get(layer.type)
        layers[layer.name] = Layer(layer, settle(layer, blobs) if settle else blobs)
    return replace(model, layers=tuple(layers.values()))


def _refuse_unread(layer: LayerParameter) -> None:
    """Refuse fields that the importer's schema has not: it passes over them without a word."""
    for field in carried_fields(layer):
        nested = field.full_name in _READ and field.place
        if field.full_name not in _READ or not is_known(
            getattr(layer, field.place[:-1]) if nested else layer, field
        ):
            raise _not_known(layer, f"{layer.type} with the field {field}")


def _with_shared(
    layer: LayerParameter, blobs: tuple[Blob, ...], shared: Mapping[str, Blob]
) -> tuple[Blob, ...]:
    # HDF5 files hold a shared blob at its owner only.
    complete = list(blobs)
    for index, spec in enumerate(layer.param):
        if spec.name not in shared:
            continue
        if index < len(blobs):
            complete[index] = shared[spec.name].reshape(blobs[index].shape)
        elif index == len(complete):
            complete.append(shared[spec.name])
    return tuple(complete)


def _settle_inner_product(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    if not layer.inner_product_param.transpose:
        return blobs
    layer.inner_product_param.ClearField("transpose")
    return tuple(blob.T for blob in blobs)  # a bias is its own transpose


def _settle_lrn(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    settings = layer.lrn_param
    if settings.k != 1:
        raise _not_known(layer, f"LRN with k {settings.k:g}")
    for name in ("local_size", "alpha", "beta", "norm_region"):
        setattr(settings, name, getattr(settings, name))
    return blobs


def _settle_concat(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    if layer.concat_param.HasField("concat_dim"):
        layer.concat_param.axis = layer.concat_param.concat_dim
    return blobs


def _settle_slice(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    if layer.slice_param.HasField("slice_dim"):
        layer.slice_param.axis = layer.slice_param.slice_dim
    return blobs


def _settle_batch_norm(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    settings = layer.batch_norm_param
    if settings.HasField("use_global_stats") and not settings.use_global_stats:
        raise _not_known(layer, "BatchNorm over the batch (use_global_stats: false)")
    return blobs


def _settle_pooling(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    """What Caffe calls round_mode is ceil_mode in the importer's schema."""
    settings = layer.pooling_param
    if settings.HasField("round_mode"):
        if not fork_part(settings).HasField("ceil_mode"):
            ceil = settings.round_mode == PoolingParameter.CEIL
            carry(settings, f"ceil_mode: {'true' if ceil else 'false'}")
        settings.ClearField("round_mode")
    return blobs


def _settle_depthwise(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    layer.CopyFrom(stock_form(layer))
    return blobs


def _settle_prelu(layer: LayerParameter, blobs: tuple[Blob, ...]) -> tuple[Blob, ...]:
    if layer.prelu_param.channel_shared:
        raise _not_known(layer, "PReLU with channel_shared")
    return blobs


_READ = frozenset(
    {
        "detection_output_param", "norm_param", "permute_param", "pooling_param.ceil_mode",
        "prior_box_param", "psroi_pooling_param", "roi_pooling_param",
    }
)  # fmt: skip
"""Fields of forks that the importer's own schema has."""

_SETTLE = {
    "BatchNorm": _settle_batch_norm,
    "Concat": _settle_concat,
    "DepthwiseConvolution": _settle_depthwise,
    "InnerProduct": _settle_inner_product,
    "LRN": _settle_lrn,
    "PReLU": _settle_prelu,
    "Pooling": _settle_pooling,
    "Slice": _settle_slice,
}
