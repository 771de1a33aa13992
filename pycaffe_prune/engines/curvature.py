"""Second derivatives of the loss by each weight, measured on training images in a worker."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.data_faults import refuse_faulty_data
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.initial_weights import require_use
from pycaffe_prune.engines.net_data import batch_size, refuse_unfed
from pycaffe_prune.engines.prepare import resolved_net
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.fit import refuse_repeated_names
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.loading import new_layers
from pycaffe_prune.net.state_wish import OWN_STATE, StateWish, read_net_in_state
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = ["CurvatureJob", "CurvatureKind", "CurvatureRequest", "measured_curvature"]

CurvatureKind = Literal["hessian", "fisher"]
"""The diagonal of the Hessian by LeCun's recursion, or the mean square of images' gradients."""


@dataclass(frozen=True)
class CurvatureRequest:
    """What is to be measured."""

    net: Path
    """Whose phase TRAIN reads training images."""
    weights: Path
    """Where ``model`` is from, for sentences."""
    model: Caffemodel
    kind: CurvatureKind
    batches: int
    """Of the net's phase TRAIN, from the first on; the mean is taken over them."""
    blobs: tuple[BlobKey, ...]
    data: Path | None = None
    """Folder in which the net's relative LMDB and mean paths are looked up."""
    device: str = "cpu"
    threads: int = 1
    state: StateWish = OWN_STATE
    own: tuple[Path, ...] = ()
    """As `TrainRequest.own`."""
    trust: bool = False
    """Whether the net is the user's own, and may have any file read (`net.trust`)."""


class CurvatureJob(BaseModel):
    """What a worker measures; the second derivatives go to ``curvature.npz``."""

    model_config = ConfigDict(frozen=True)

    weights: str
    kind: CurvatureKind
    batches: int
    """Of the net as it is in the folder."""
    blobs: tuple[tuple[str, int], ...]
    """In ``curvature.npz`` they are called c0, c1, ..."""


def measured_curvature(
    request: CurvatureRequest, work: Callable[[RunFolder], Iterator[Event]]
) -> dict[BlobKey, Blob]:
    """Return the second derivatives of the net's loss by each weight of some blobs.

    They are of the net's training loss as it is without decay and dropout, its mean over the
    batches; per image, where its normalization is Caffe's default.

    Args:
        request: What to measure.
        work: Does the job that a folder holds, in a worker.

    Returns:
        Per blob, float32, of its shape.

    Raises:
        FormatError: The net is damaged, not to be trusted, or its phase TRAIN reads no files.
        DataError: The data are missing or damaged.
        SurgeryError: The weights are not those of the net, or no loss is reached from a blob.
        EngineError: The worker refused the net.
    """
    net = _prepared_net(request)
    batches = request.batches
    if request.kind == "fisher":
        batches *= _one_image_a_batch(net)
    with temporary_folder() as place:
        folder = RunFolder(place)
        write_prototxt(folder.net, net)
        weights = folder.path / "weights.caffemodel"
        write_caffemodel(weights, request.model)
        job = CurvatureJob(
            weights=str(weights), kind=request.kind, batches=batches, blobs=request.blobs
        )
        write_text(folder.job, job.model_dump_json())
        for _ in work(folder):
            pass
        with np.load(folder.path / "curvature.npz", allow_pickle=False) as found:
            return {key: found[f"c{place}"] for place, key in enumerate(request.blobs)}


def _prepared_net(request: CurvatureRequest) -> NetParameter:
    """The layers of the phase TRAIN, with absolute paths to its data."""
    net = read_net_in_state(request.net, request.state)
    if not request.trust:
        refuse_untrusted(net, request.net)
    refuse_repeated_names(net)
    state = NetState.of(net, TRAIN)
    train = layers_in_state(net, state)
    refuse_unfed(train, request.net)
    if not any(map(batch_size, train)):
        raise FormatError(
            f"{request.net}: its phase TRAIN reads no training images, by which second derivatives "
            "are measured; give the net that was trained, with its Data, ImageData, HDF5Data or "
            "WindowData"
        )
    readable = Readable.of(request.net, request.data, request.own, trust=request.trust)
    net, files = resolved_net(net, DataFolder(request.data, readable))
    refuse_faulty_data(net, files, [state])
    train = layers_in_state(net, state)
    found = require_use(request.weights, request.model, net, TRAIN, data_shapes(train))
    if missing := new_layers(train, found.copied):
        raise SurgeryError(
            f"{request.weights}: has no weights for the net's layer '{missing[0]}'; while they are "
            "random, the loss tells nothing"
        )
    return NetParameter(name=net.name, state=net.state, layer=train)


def _one_image_a_batch(net: NetParameter) -> int:
    """Make every batch one image; return how many images it was."""
    if drawn := [layer.name for layer in net.layer if layer.type == "WindowData"]:
        raise FormatError(
            f"layer '{drawn[0]}' (WindowData) draws the windows of a batch by their kinds, and not "
            "one by one; measure with second derivatives, which take batches as they are"
        )
    sizes = [size for size in map(batch_size, net.layer) if size]
    for layer in net.layer:
        for settings in (layer.data_param, layer.image_data_param, layer.hdf5_data_param):
            if settings.batch_size:
                settings.batch_size = 1
    return sizes[0]
