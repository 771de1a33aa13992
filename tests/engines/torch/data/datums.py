"""LMDBs of any Datums, and the Data layers that read them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import lmdb
import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.formats.caffe_pb2 import Datum, LayerParameter

# Caffe reads the data format of LMDB 0.9 only; py-lmdb 3 writes that of 1.0 unless told otherwise.
_FORMAT = {"lib_version": 0} if hasattr(lmdb.Environment, "lib_version") else {}


def write_lmdb(folder: Path, values: Sequence[bytes]) -> Path:
    with (
        lmdb.open(str(folder), sync=False, lock=False, map_size=2**24, **_FORMAT) as environment,
        environment.begin(write=True) as transaction,
    ):
        for place, value in enumerate(values):
            transaction.put(b"%08d" % place, value)
    return folder


def raw(image: NDArray[np.uint8], label: int = 0) -> bytes:
    channels, height, width = image.shape
    datum = Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label)
    return datum.SerializeToString()


def floats(image: NDArray[np.float32], label: int = 0) -> bytes:
    channels, height, width = image.shape
    datum = Datum(channels=channels, height=height, width=width, label=label)
    datum.float_data.extend(image.ravel().tolist())
    return datum.SerializeToString()


def encoded(image: NDArray[np.uint8], label: int = 0, ending: str = ".png") -> bytes:
    data = cv2.imencode(ending, image.transpose(1, 2, 0))[1].tobytes()
    return Datum(data=data, label=label, encoded=True).SerializeToString()


def data_layer(source: Path, batch_size: int, transform: str = "") -> LayerParameter:
    text = (
        'name: "data" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{source}" batch_size: {batch_size} backend: LMDB }} '
        f"transform_param {{ {transform} }}"
    )
    return text_format.Parse(text, LayerParameter())


def batches(source: Source, count: int) -> list[list[NDArray[np.float32]]]:
    """What the source brings, per top one array a batch; closes it."""
    try:
        found = [source.next() for _ in range(count)]
    finally:
        source.close()
    return [[as_array(tensor) for tensor in batch] for batch in zip(*found, strict=True)]


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.cpu().numpy().copy()
