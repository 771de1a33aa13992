"""What ``caffe-prune convert`` can write: one small function per format."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.convert.definitions import model_net, with_definitions
from pycaffe_prune.convert.deploy import deploy_remarks, to_deploy
from pycaffe_prune.convert.stock import masks_behind, stock_model, stock_net
from pycaffe_prune.convert.strip import strip_model, strip_training
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.compressed.file import write_compressed
from pycaffe_prune.formats.files import atomic_write, holds_text, sha256_of
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.mean import read_mean, write_mean, write_mean_npy
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.sparse import write_sparse
from pycaffe_prune.formats.tensors import write_npz, write_safetensors
from pycaffe_prune.formats.weights import read_weights, write_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import (
    StateWish,
    only_layers_of,
    read_net_in_state,
    with_state_of,
)

__all__ = ["ENDINGS", "FORMATS", "Conversion", "Output", "Request"]


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    source: Path
    net: Path | None
    out: Path
    inputs: Mapping[str, Shape]
    strip: bool
    state: StateWish
    mask: Path | None = None
    """Where the masks behind a fork's weights are written."""


@dataclass(frozen=True)
class Output:
    """One file to be written; everything that can fail on bad input is done by then."""

    path: Path
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Conversion:
    """All files of one conversion, and what the user should know about them."""

    outputs: Sequence[Output]
    remarks: Sequence[str] = ()


def _weights(write: Callable[[Path, Caffemodel], None], request: Request) -> Conversion:
    model = converted = read_weights(request.source)
    if request.net is not None:
        net = read_net_in_state(request.net, request.state)
        require_fitting(net, model, request.inputs)
        defined = with_definitions(model, net)
        converted = replace(defined, net=with_state_of(defined.net, read_net(request.net)))
    if request.strip:
        converted = strip_model(model, _net_of(request, model))
    return Conversion(
        [Output(request.out, lambda path: write(path, converted))], _remarks(model, converted)
    )


def _remarks(before: Caffemodel, after: Caffemodel) -> list[str]:
    bad = [
        f"layer '{name}', blob {index}"
        for (name, index), blob in before.blobs()
        if not np.isfinite(blob).all()
    ]
    kept = {layer.name for layer in after.layers}
    lost = [layer.name for layer in before.layers if layer.blobs and layer.name not in kept]
    remarks = []
    if bad:
        remarks.append(f"warning: NaN or infinite values stay as they are in {', '.join(bad)}")
    if lost:
        remarks.append(f"left out, since the net does not need them: {', '.join(lost)}")
    return remarks


def _net_of(request: Request, model: Caffemodel) -> NetParameter:
    """The net given by --net, else the one that the weights hold."""
    if request.net is None:
        return model_net(model)
    return _net_in_state(request.net, request.state)


def _net_in_state(path: Path, state: StateWish) -> NetParameter:
    """The net for what holds one state only: of a phase other than TEST, just its layers."""
    net = read_net_in_state(path, state)
    return net if state.phase == TEST else only_layers_of(net, state)


def _hdf5(request: Request) -> Conversion:
    if request.out.suffix != ".h5":
        raise PruneError(
            f"{request.out}: Caffe knows HDF5 weights by the ending .h5; give --out one"
        )
    return _weights(write_hdf5_weights, request)


def _prototxt(request: Request) -> Conversion:
    net = read_net(request.source) if holds_text(request.source) else None
    found = model_net(read_weights(request.source)) if net is None else net
    return Conversion([Output(request.out, lambda path: write_prototxt(path, found))])


def _stock(request: Request) -> Conversion:
    if holds_text(request.source):
        net = stock_net(read_net(request.source))
        return Conversion([Output(request.out, lambda path: write_prototxt(path, net))])
    theirs = read_weights(request.source)
    model, masks = stock_model(theirs), masks_behind(theirs)
    outputs = [Output(request.out, lambda path: write_weights(path, model))]
    if request.mask is None:
        return Conversion(outputs, _of_masks(masks))
    if not masks:
        raise PruneError(f"{request.source}: holds no masks behind its weights; leave --mask out")
    found = MaskFile(masks, sha256_of(request.source), "masks of a fork")
    return Conversion([*outputs, Output(request.mask, lambda path: write_mask(path, found))])


def _of_masks(masks: Iterable[BlobKey]) -> list[str]:
    names = ", ".join(dict.fromkeys(name for name, _ in masks))
    remark = f"the masks of {names} are multiplied into the weights; --mask FILE keeps them as well"
    return [remark] if names else []


def _deploy(request: Request) -> Conversion:
    if holds_text(request.source):
        net, model = _net_in_state(request.source, request.state), None
    else:
        model = read_weights(request.source)
        net = _net_of(request, model)
    deploy = to_deploy(net, request.inputs, model)
    if model is not None:
        require_fitting(deploy, model)
    if request.strip:
        deploy = strip_training(deploy)
    return Conversion(
        [Output(request.out, lambda path: write_prototxt(path, deploy))], deploy_remarks(net)
    )


def _onnx(request: Request) -> Conversion:
    try:
        from pycaffe_prune.convert.onnx_model import to_onnx
    except ImportError as error:
        raise PruneError(
            "the package onnx is not installed; it comes with pip install 'pycaffe-prune[convert]'"
        ) from error
    model = read_weights(request.source)
    net = _net_of(request, model)
    converted = to_onnx(to_deploy(net, request.inputs, model), model)

    def write(path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(converted.SerializeToString())

    return Conversion([Output(request.out, write)], deploy_remarks(net))


def _mean(write: Callable[[Path, NDArray[np.float32]], None], request: Request) -> Conversion:
    mean = read_mean(request.source)
    return Conversion([Output(request.out, lambda path: write(path, mean))])


FORMATS: Mapping[str, Callable[[Request], Conversion]] = {
    "binaryproto": partial(_mean, write_mean),
    "caffemodel": partial(_weights, write_caffemodel),
    "compressed": partial(_weights, write_compressed),
    "deploy": _deploy,
    "hdf5": _hdf5,
    "npy": partial(_mean, write_mean_npy),
    "npz": partial(_weights, write_npz),
    "onnx": _onnx,
    "prototxt": _prototxt,
    "safetensors": partial(_weights, write_safetensors),
    "sparse": partial(_weights, write_sparse),
    "stock": _stock,
}
"""By the name that ``--to`` takes."""

ENDINGS = {
    ".binaryproto": "binaryproto",
    ".caffemodel": "caffemodel",
    ".caffemodel.h5": "hdf5",
    ".cpz": "compressed",
    ".h5": "hdf5",
    ".npy": "npy",
    ".sparse.npz": "sparse",
    ".npz": "npz",
    ".onnx": "onnx",
    ".prototxt": "prototxt",
    ".safetensors": "safetensors",
}
"""The format that an ending of ``--out`` tells; the first that fits counts."""
