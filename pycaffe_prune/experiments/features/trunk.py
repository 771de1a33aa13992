"""The frozen part of a net: its layers from the image up to a blob, whose values are features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.inference import inference_net, input_shapes
from pycaffe_prune.net.shapes import Shape, extents, infer_shapes
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = ["Trunk", "cut_trunk", "pool_to_grid"]


@dataclass(frozen=True)
class Trunk:
    """Layers that lead from one data blob to one blob of features, and their weights."""

    net: NetParameter
    weights: Path
    source: LayerParameter
    """What the data blob comes from in the whole net."""
    data: str
    """The data blob, the top of an Input layer."""
    input_shape: Shape
    """1 × channels × height × width of the data blob."""
    blob: str
    grid: int | None
    shape: tuple[int, int, int]
    """Channels, height and width of the features of one image, averaged over ``grid``."""

    def require_prepared(self, mean: bool, scale: bool) -> None:
        """Refuse to leave out what the net's own data layer does to its images.

        Args:
            mean: Whether a mean is subtracted.
            scale: Whether the images are multiplied by a scale.

        Raises:
            FormatError: The data layer has a mean or a scale, and there is none here.
        """
        told = self.source.transform_param
        missing = {
            "mean_file": bool(told.mean_file) and not mean,
            "mean_value": bool(told.mean_value) and not mean,
            "scale": told.scale != 1 and not scale,
        }
        for field, is_missing in missing.items():
            if is_missing:
                option = "--scale" if field == "scale" else "--mean"
                raise FormatError(
                    f"layer '{self.source.name}' ({self.source.type}) prepares the images of this "
                    f"net with {field}, and there is no {option}; give it, or give a deploy net "
                    "where the images are prepared already"
                )

    def features(self, engine: Engine, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the features of some images.

        Args:
            engine: What computes.
            images: Images × what the data blob has per image, mean and scale applied.

        Returns:
            Images × channels × height × width.

        Raises:
            EngineError: The engine failed.
        """
        with temporary_folder() as folder:
            net = folder / "trunk.prototxt"
            write_prototxt(net, self.net)
            (found,) = engine.forward(net, self.weights, {self.data: images}, [self.blob])
        maps = found if self.grid is None else pool_to_grid(found, self.grid)
        return maps.reshape(len(images), *self.shape)


def cut_trunk(
    net_path: Path,
    weights: Path,
    blob: str,
    image: tuple[int, int, int],
    *,
    grid: int | None = None,
    trust: bool = False,
) -> Trunk:
    """Take the layers of a TEST net that a blob depends on.

    Args:
        net_path: A prototxt, deploy or train_val.
        weights: Its trained weights, a caffemodel of either form.
        blob: Name of a blob; of a name that several layers write in place, the last version.
        image: Channels, height and width of the images, for nets that do not tell what they take
            (a ``crop_size`` of their data layer does).
        grid: See `pool_to_grid`; None: the whole blob.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Raises:
        FormatError: Net or weights cannot be read, or a layer computes as in training or is not to
            be trusted.
        SurgeryError: There is no such blob, it depends on more than one data blob, the weights do
            not fit, or the grid does not.
    """
    net = read_net(net_path)
    inputs = input_shapes(net, [blob], {})
    if len(inputs) != 1:
        raise SurgeryError(
            f"{net_path}: the blob '{blob}' depends on the data blobs {', '.join(inputs)}; "
            "features are of images alone"
        )
    ((data, told),) = inputs.items()
    source = _source(net, data)
    if told is None and source.transform_param.crop_size:
        side = source.transform_param.crop_size
        image = (image[0], side, side)
    input_shape = (1, *(told or (1, *image))[1:])
    trunk = inference_net(net, {data: input_shape}, [blob])
    if not trust:
        refuse_untrusted(trunk, net_path)
    for layer in trunk.layer:
        refuse_unhonoured(layer, "features")
    require_fitting(trunk, read_caffemodel(weights))
    shape = _shape_of(trunk, blob)
    if grid is not None:
        channels, *_ = pool_to_grid(np.zeros((1, *shape), np.float32), grid).shape[1:]
        shape = (channels, grid, grid)
    channels, height, width = shape if len(shape) == 3 else (math.prod(shape), 1, 1)
    told_shape = (channels, height, width)
    return Trunk(trunk, weights, source, data, input_shape, blob, grid, told_shape)


def _source(net: NetParameter, data: str) -> LayerParameter:
    """The layer of the TEST net that a data blob comes from; an Input where none makes it."""
    for layer in layers_in_state(net, NetState.of(net, TEST)):
        if data in layer.top and not layer.bottom:
            return layer
    return LayerParameter(type="Input")


def _shape_of(trunk: NetParameter, blob: str) -> Sequence[int]:
    """The blob's extents for one image."""
    shapes = infer_shapes(list(trunk.layer))
    named = [
        (shape, around.problem)
        for layer, around in zip(trunk.layer, shapes, strict=True)
        for name, shape in zip(layer.top, around.tops, strict=True)
        if name == blob
    ]
    shape, problem = named[-1]
    if shape is None:
        raise SurgeryError(problem or f"the shape of the blob '{blob}' is not known")
    return shape[1:]


def pool_to_grid(maps: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Average every map over the cells of a grid.

    Cell i covers rows floor(i * height / grid) to ceil((i + 1) * height / grid), and columns alike:
    neighbours share a row where the side is no multiple of ``grid``. A side of 13 and a grid of 3
    make what a Pooling layer with AVE, kernel_size 5 and stride 4 makes.

    Args:
        maps: Images × channels × height × width.
        grid: Cells a side, at least 1.

    Returns:
        Images × channels × grid × grid.

    Raises:
        SurgeryError: The maps are smaller than the grid, or are no maps.
    """
    if maps.ndim != 4 or min(maps.shape[2:]) < grid:
        raise SurgeryError(
            f"a grid of {grid}x{grid} does not fit on {extents(maps.shape[1:])}; use a smaller "
            "--pool, or leave it out"
        )
    for axis in (2, 3):
        size = maps.shape[axis]
        cells = [
            np.take(maps, range(i * size // grid, -(-(i + 1) * size // grid)), axis)
            for i in range(grid)
        ]
        maps = np.stack([cell.mean(axis, dtype=np.float32) for cell in cells], axis)
    return maps
