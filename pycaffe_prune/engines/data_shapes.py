"""Shapes of what data layers bring, from their data: what a prototxt does not tell."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.datum import decode_datum, read_image
from pycaffe_prune.formats.hdf5_files import rows_shapes
from pycaffe_prune.formats.lmdb_file import LmdbFile
from pycaffe_prune.net.shapes import Shape

__all__ = ["data_shapes"]


def data_shapes(layers: Iterable[LayerParameter]) -> dict[str, Shape]:
    """Return the shapes of the tops of data layers, by blob, as far as their data tell them.

    As ``DataLayerSetUp`` of the files in `src/caffe/layers` infers them, from the first image or
    row. Data that cannot be read are left to who reads them.

    Args:
        layers: Those of one state of a net, with absolute paths.

    Raises:
        DataError: A record of an LMDB is damaged.
    """
    found: dict[str, Shape] = {}
    for layer in layers:
        found.update(zip(layer.top, _tops(layer), strict=False))
    return found


def _tops(layer: LayerParameter) -> Sequence[Shape]:
    match layer.type:
        case "Data":
            return _images(layer, layer.data_param.batch_size, _stored(layer))
        case "ImageData":
            return _images(layer, layer.image_data_param.batch_size, _listed(layer))
        case "HDF5Data":
            return _rows(layer)
        case _:
            return ()


def _images(layer: LayerParameter, batch: int, image: Shape | None) -> Sequence[Shape]:
    if image is None:
        return ()
    crop = layer.transform_param.crop_size
    height, width = (crop, crop) if crop else image[1:]
    return ((batch, image[0], height, width), (batch,))


def _stored(layer: LayerParameter) -> Shape | None:
    told, source = layer.transform_param, Path(layer.data_param.source)
    flag = cv2.IMREAD_UNCHANGED
    if told.force_color or told.force_gray:  # of images that are encoded
        flag = cv2.IMREAD_COLOR if told.force_color else cv2.IMREAD_GRAYSCALE
    with LmdbFile(source) as database:
        for _, value in database.records():
            return decode_datum(value, f"{source}: the first record", flag).shape
    return None


def _listed(layer: LayerParameter) -> Shape | None:
    told = layer.image_data_param
    channels = 3 if told.is_color else 1
    if told.new_height and told.new_width:
        return (channels, told.new_height, told.new_width)
    with Path(told.source).open(encoding="utf-8", errors="surrogateescape") as lines:
        name = next(lines, "").rpartition(" ")[0]
    image = read_image(told.root_folder + name)
    return None if image is None else (channels, *image.shape[:2])


def _rows(layer: LayerParameter) -> Sequence[Shape]:
    told = layer.hdf5_data_param
    names = Path(told.source).read_text(encoding="utf-8", errors="surrogateescape").split()
    try:
        shapes = rows_shapes(Path(names[0]), layer.top)
    except (FormatError, IndexError):
        return ()
    return [(told.batch_size, *shape[1:]) for shape in shapes]
