"""What two models are compared on: random values, an array, or the images of an LMDB."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError, FormatError, SurgeryError
from pycaffe_prune.formats.blobs import mapped_file, naming_file
from pycaffe_prune.formats.lmdb_images import as_data_layer, stored_images
from pycaffe_prune.formats.npz import parse_npy
from pycaffe_prune.net.index_inputs import IndexUse
from pycaffe_prune.net.shapes import Shape, extents
from pycaffe_prune.pruning.verify import Data, InputSource

__all__ = ["array_input", "lmdb_input", "random_input"]

Image = NDArray[np.float32]
Uses = Mapping[str, Sequence[IndexUse]]

_NO_USES: Uses = MappingProxyType({})


def random_input(images: int, *, seed: int = 0, scale: float = 1.0) -> InputSource:
    """Return a source of normally distributed values with mean 0 and deviation ``scale``.

    Where layers take the values as whole numbers (`net.index_inputs`), each of those that all of
    them take is as likely as any other; regions are as many as images, one of each.
    """

    def make(shapes: Mapping[str, Shape | None], uses: Uses = _NO_USES) -> Data:
        random = np.random.default_rng(seed)
        made = {}
        for name, shape in shapes.items():
            if shape is None:
                raise SurgeryError(
                    f"neither net tells the shape of its data blob '{name}'; give it with "
                    f"--input-shape {name}=NxCxHxW, or give real input"
                )
            whole = (images, *shape[1:])
            if any(use.of_regions for use in uses.get(name, ())):
                made[name] = _regions(random, whole)
            elif name in uses:
                bound = min(images if use.bound is None else use.bound for use in uses[name])
                values = random.integers(0, max(bound, 1), whole)
                values[0] = max(bound, 1) - 1  # a Filter that selects nothing has no output
                made[name] = values.astype(np.float32)
            else:
                made[name] = random.normal(0, scale, whole).astype(np.float32)
        return made

    return make


def _regions(random: np.random.Generator, shape: Shape) -> Image:
    """One region of each image: its number, and two corners within 224 pixels."""
    count = shape[0]
    if np.prod(shape[1:]) != 5:
        raise SurgeryError(f"a blob of regions is {extents(shape)}; rows of 5 values are needed")
    corners = np.sort(random.integers(0, 224, (count, 2, 2)), axis=1)
    rows = np.column_stack([np.arange(count), corners.reshape(count, 4)])
    return rows.astype(np.float32).reshape(shape)


def array_input(path: Path) -> InputSource:
    """Return the source of a ``.npy`` file: images × what the data blob has per image.

    The values go in as they are: a mean is subtracted, and a scale applied, before.
    """

    def make(shapes: Mapping[str, Shape | None], _uses: Uses = _NO_USES) -> Data:
        name, shape = _only_one(shapes)
        with naming_file(path, "a .npy array of numbers"):
            values = parse_npy(mapped_file(path, "a .npy array"))
        if values.dtype.kind not in "fiu":
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

    def make(shapes: Mapping[str, Shape | None], _uses: Uses = _NO_USES) -> Data:
        name, shape = _only_one(shapes)
        found = [
            as_data_layer(stored.pixels, shape, mean=mean, scale=scale)
            for stored in islice(stored_images(folder), images)
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
