"""Which data layer gets its batches from what."""

import torch

from pycaffe_prune.engines.net_data import batch_size
from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.hdf5_source import Hdf5Source
from pycaffe_prune.engines.torch.data.image_source import image_source
from pycaffe_prune.engines.torch.data.lmdb_source import database_source
from pycaffe_prune.engines.torch.data.memory_source import (
    DummySource,
    InputSource,
    MemorySource,
)
from pycaffe_prune.engines.torch.data.window_source import window_source
from pycaffe_prune.errors import DataError, EngineError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["DATA_TYPES", "make_source"]

DATA_TYPES = frozenset(
    {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"}
)
"""The data layers that `make_source` knows."""


def make_source(layer: LayerParameter, phase: int, device: torch.device, seed: int) -> Source:
    """Return where the batches of a data layer come from.

    Args:
        layer: The layer; paths in it are used as they stand.
        phase: TRAIN or TEST.
        device: Where batches are wanted.
        seed: Of all that is drawn at random.

    Raises:
        DataError: The data are missing or damaged, or do not fit to what the layer says.
        FormatError: A mean file is missing or damaged, or a filler is not known.
        SurgeryError: The layer contradicts itself.
        EngineError: This engine does not know its type.
    """
    if batch_size(layer) == 0:
        raise DataError(f"layer '{layer.name}' ({layer.type}): needs a batch_size of at least 1")
    match layer.type:
        case "Data":
            return database_source(layer, phase, device, seed)
        case "ImageData":
            return image_source(layer, phase, device, seed)
        case "HDF5Data":
            return Hdf5Source(layer, device, seed)
        case "WindowData":
            return window_source(layer, device, seed)
        case "MemoryData":
            return MemorySource(layer, device)
        case "Input":
            return InputSource(layer, device)
        case "DummyData":
            return DummySource(layer, device, seed)
        case _:
            raise EngineError(
                f"layer '{layer.name}': the engine torch has no data layer of type '{layer.type}'; "
                "use --engine caffe"
            )
