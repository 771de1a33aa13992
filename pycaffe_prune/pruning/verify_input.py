"""What two models are compared on: random values, an array, or the images of an LMDB."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError, FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.net.shapes import Shape, extents
from pycaffe_prune.pruning.verify import Data, InputSource

__all__ = ["array_input", "lmdb_input", "random_input"]

Image = NDArray[np.float32]


def random_input(images: int, *, seed: int = 0, scale: float = 1.0) -> InputSource:
    """Return a source of normally distributed values with mean 0 and deviation ``scale``."""

    def make(shapes: Mapping[str, Shape | None]) -> Data:
        random = np.random.default_rng(seed)
        made = {}
        for name, shape in shapes.items():
            if shape is None:
                raise SurgeryError(
                    f"neither net tells the shape of its data blob '{name}'; give it with "
                    f"--input-shape {name}=NxCxHxW, or give real input"
                )
            made[name] = random.normal(0, scale, (images, *shape[1:])).astype(np.float32)
        return made

    return make


def array_input(path: Path) -> InputSource:
    """Return the source of a ``.npy`` file: images × what the data blob has per image.

    The values go in as they are: a mean is subtracted, and a scale applied, before.
    """

    def make(shapes: Mapping[str, Shape | None]) -> Data:
        name, shape = _only_one(shapes)
        existing_file(path, "a .npy array")
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FormatError(f"{path}: is no .npy array ({error})") from error
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
            raise FormatError(f"{path}: holds no numbers; a .npy array of images is needed")
        if not values.size or (shape is not None and values.shape[1:] != shape[1:]):
            wanted = "any" if shape is None else extents(shape)
            raise SurgeryError(
                f"{path}: is {extents(values.shape)}, the data blob '{name}' is {wanted}; all but "
                "the number of images must agree"
            )
        return {name: np.asarray(values, np.float32)}

    return make


def lmdb_input(
    folder: Path, images: int, *, scale: float = 1.0, mean: Image | None = None
) -> InputSource:
    """Return the source of the first ``images`` images of an LMDB of Datum messages.

    They go in as a Data layer of the TEST phase gives them: (pixel - mean) * scale, cut out of the
    middle where they are larger than the data blob (`src/caffe/data_transformer.cpp`).

    Args:
        folder: The LMDB.
        images: How many.
        scale: ``transform_param.scale``.
        mean: ``transform_param.mean_file``: channels × height × width.
    """

    def make(shapes: Mapping[str, Shape | None]) -> Data:
        name, shape = _only_one(shapes)
        found = [
            _transformed(pixels, mean, scale, shape) for pixels in islice(_images(folder), images)
        ]
        if len(found) < images:
            raise DataError(f"{folder}: holds {len(found)} images, {images} are wanted")
        if len({image.shape for image in found}) > 1:
            raise DataError(f"{folder}: its images have different sizes; give crop_size alike")
        return {name: np.stack(found)}

    return make


def _only_one(shapes: Mapping[str, Shape | None]) -> tuple[str, Shape | None]:
    if len(shapes) != 1:
        raise SurgeryError(
            f"the nets read the data blobs {', '.join(shapes)}; real input can be given to nets "
            "with one only: leave it out for random input"
        )
    return next(iter(shapes.items()))


def _images(folder: Path) -> Iterator[Image]:
    """Yield the pixels of an LMDB's images in the order of their keys."""
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, create=False) as environment,
            environment.begin() as transaction,
        ):
            for key, value in transaction.cursor():
                yield _pixels(folder, key, value)
    except lmdb.Error as error:
        raise DataError(f"{folder}: is no LMDB ({error})") from error


def _pixels(folder: Path, key: bytes, value: bytes) -> Image:
    try:
        datum = Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{folder}: record {key!r} is no Datum message") from error
    shape = (datum.channels, datum.height, datum.width)
    if datum.encoded:
        raise DataError(
            f"{folder}: record {key!r} is a coded image; build the LMDB without --encoded"
        )
    pixels = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.array(datum.float_data, np.float32)
    )
    if not pixels.size or pixels.size != np.prod(shape):
        raise DataError(
            f"{folder}: record {key!r} holds {pixels.size} values, not {extents(shape)}"
        )
    return pixels.astype(np.float32).reshape(shape)


def _transformed(pixels: Image, mean: Image | None, scale: float, shape: Shape | None) -> Image:
    if mean is not None:
        if mean.shape != pixels.shape:
            raise SurgeryError(
                f"the mean is {extents(mean.shape)}, the images are {extents(pixels.shape)}"
            )
        pixels = pixels - mean
    if shape is not None:
        pixels = _cut(pixels, shape)
    return pixels * np.float32(scale)


def _cut(pixels: Image, shape: Shape) -> Image:
    spare = [have - wanted for have, wanted in zip(pixels.shape, shape[1:], strict=False)]
    if len(shape) != 4 or spare[0] or min(spare) < 0:
        raise SurgeryError(
            f"the images are {extents(pixels.shape)}, the net's data blob is {extents(shape)}; "
            "give images that fit"
        )
    top, left = spare[1] // 2, spare[2] // 2
    return pixels[:, top : top + shape[2], left : left + shape[3]]
