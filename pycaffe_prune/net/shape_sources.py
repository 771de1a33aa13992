"""Shapes of the tops of layers that bring data into a net, as far as the prototxt tells them."""

from collections.abc import Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import BlobShape, LayerParameter

__all__ = [
    "database",
    "dummy_data",
    "hdf5_data",
    "image_data",
    "input_",
    "memory_data",
    "window_data",
]


def _per_top(param: LayerParameter, shapes: Sequence[Shape]) -> list[Shape | None]:
    """One shape for all tops, or one for each."""
    if not shapes:
        return [None] * len(param.top)
    if len(shapes) not in (1, len(param.top)):
        raise SurgeryError(f"tells {len(shapes)} shapes for {len(param.top)} tops")
    return [*shapes] * (len(param.top) if len(shapes) == 1 else 1)


def _dims(shapes: Sequence[BlobShape]) -> list[Shape]:
    return [tuple(shape.dim) for shape in shapes]


def input_(param: LayerParameter) -> list[Shape | None]:
    """Return what Input tells."""
    return _per_top(param, _dims(param.input_param.shape))


def dummy_data(param: LayerParameter) -> list[Shape | None]:
    """Return what DummyData tells, by ``shape`` or by num, channels, height and width."""
    told = param.dummy_data_param
    if not told.num:
        return _per_top(param, _dims(told.shape))
    columns = [list(axis) for axis in (told.num, told.channels, told.height, told.width)]
    if any(len(column) not in (1, len(param.top)) for column in columns):
        raise SurgeryError("num, channels, height and width must be given once, or once per top")
    columns = [column * (len(param.top) if len(column) == 1 else 1) for column in columns]
    return _per_top(param, list(zip(*columns, strict=True)))


def database(param: LayerParameter) -> list[Shape | None]:
    """Return the tops of Data: the images' size is in the database alone."""
    return [None, (param.data_param.batch_size,)]


def image_data(param: LayerParameter) -> list[Shape | None]:
    """Return the tops of ImageData: the files decide if they are neither resized nor cut."""
    told, crop = param.image_data_param, param.transform_param.crop_size
    height, width = (crop, crop) if crop else (told.new_height, told.new_width)
    batch, channels = told.batch_size, 3 if told.is_color else 1
    images = (batch, channels, height, width) if height and width else None
    return [images, (batch,)]


def memory_data(param: LayerParameter) -> list[Shape | None]:
    """Return the tops of MemoryData."""
    told = param.memory_data_param
    return [(told.batch_size, told.channels, told.height, told.width), (told.batch_size,)]


def window_data(param: LayerParameter) -> list[Shape | None]:
    """Return the tops of WindowData: colour images cut to ``crop_size``."""
    batch, crop = param.window_data_param.batch_size, param.transform_param.crop_size
    return [(batch, 3, crop, crop), (batch,)]


def hdf5_data(param: LayerParameter) -> list[Shape | None]:
    """Return as many unknown shapes as there are tops: all of them are in the files."""
    return [None] * len(param.top)
