"""The images that a net is trained on, prepared as its Data layer does, for a choice by images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.engines.contents import lmdb_content
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.net_data import is_lmdb, records, resolve_databases
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    TransformationParameter,
)
from pycaffe_prune.formats.lmdb_images import as_data_layer, stored_images
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["LabelledImages", "TrainingImages", "training_images"]


@dataclass(frozen=True)
class LabelledImages:
    """Some images in a row."""

    images: NDArray[np.float32]
    """Images × channels × height × width, mean and scale applied."""
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TrainingImages:
    """The images of the Data layer of a TRAIN net, in the order of its LMDB.

    They are cut out of the middle and not mirrored, where training does either at random.
    """

    database: Path
    count: int
    data: str
    """The blob that the layer puts them into."""
    shape: tuple[int, int, int]
    """Channels, height and width of what the net gets."""
    transform: TransformationParameter
    mean: NDArray[np.float32] | None

    def read(self, first: int, count: int) -> LabelledImages:
        """Return the images ``first`` to ``first + count`` of the LMDB.

        Raises:
            DataError: A record is damaged, or there are too few.
            SurgeryError: An image does not fit to the others, or to the mean.
        """
        found = list(islice(stored_images(self.database, first), count))
        if len(found) < count:
            raise DataError(f"{self.database}: has no images {first} to {first + count}")
        images = [self._prepared(record.pixels) for record in found]
        labels = np.array([record.label for record in found], np.int64)
        return LabelledImages(np.stack(images), labels)

    def batches(self, first: int, count: int, size: int) -> Iterator[LabelledImages]:
        """Yield them ``size`` at a time."""
        for start in range(first, first + count, size):
            yield self.read(start, min(size, first + count - start))

    def _prepared(self, pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        shape = (1, *self.shape)
        return as_data_layer(pixels, shape, mean=self.mean, scale=self.transform.scale)


def training_images(
    net: NetParameter,
    net_path: Path,
    data: Path | None,
    *,
    own: Sequence[Path] = (),
    trust: bool = False,
) -> TrainingImages:
    """Find the images that the Data layer of the TRAIN net reads.

    Args:
        net: In the V2 form, in its state; it stays as it is.
        net_path: Where it was read from.
        data: Folder that holds the net's LMDBs; None: the working directory.
        own: Other folders below which the net may have files read.
        trust: Whether the net is the user's own.

    Raises:
        DataError: The LMDB is missing, damaged, or the one that the TEST net reads as well.
        FormatError: The net has no such layer or several, or it prepares images in a way that is
            not followed here.
    """
    layers = layers_in_state(net, NetState.of(net, TRAIN))
    sources = [layer for layer in layers if not layer.bottom and layer.type != "DummyData"]
    if [layer.type for layer in sources] != ["Data"]:
        named = ", ".join(f"{layer.name} ({layer.type})" for layer in sources) or "none"
        raise FormatError(
            f"{net_path}: images come from the one Data layer of the phase TRAIN, but the sources "
            f"of that net are: {named}; give a train_val net whose images are in an LMDB"
        )
    found = NetParameter(layer=sources)
    folder = DataFolder(data, Readable.of(net_path, data, own, trust=trust))
    resolve_databases(found, net_path, folder)
    (layer,) = found.layer
    _require_followed(layer, net_path)
    database = Path(layer.data_param.source)
    _require_no_test_images(net, net_path, folder, database)
    stored = next(stored_images(database)).pixels.shape
    side = layer.transform_param.crop_size
    shape = (stored[0], side or stored[1], side or stored[2])
    mean = _mean(layer.transform_param, stored[0], net_path)
    return TrainingImages(
        database, records(layer), layer.top[0], shape, layer.transform_param, mean
    )


def _require_followed(layer: LayerParameter, net_path: Path) -> None:
    told = layer.transform_param
    for field in ("force_color", "force_gray"):
        if getattr(told, field):
            raise FormatError(
                f"{net_path}: layer '{layer.name}' (Data) has {field}, which images read outside "
                "of a net do not follow; make an LMDB of images that need none"
            )


def _require_no_test_images(
    net: NetParameter, net_path: Path, folder: DataFolder, database: Path
) -> None:
    """Choices made on the images that a net is judged by would flatter it."""
    own = lmdb_content(database).sha256
    for layer in layers_in_state(net, NetState.of(net, TEST)):
        if layer.type != "Data":
            continue
        found, _ = folder.find(layer.data_param.source, is_lmdb)
        if is_lmdb(found) and lmdb_content(found).sha256 == own:
            raise DataError(
                f"{net_path}: its phases TRAIN and TEST read the same images ({database}); a "
                "choice must be made on others than those that judge it"
            )


def _mean(
    told: TransformationParameter, channels: int, net_path: Path
) -> NDArray[np.float32] | None:
    if told.mean_file and told.mean_value:
        raise FormatError(
            f"{net_path}: its Data layer has both mean_file and mean_value, which Caffe refuses"
        )
    if told.mean_file:
        return read_mean(Path(told.mean_file))
    if not told.mean_value:
        return None
    if len(told.mean_value) not in (1, channels):
        raise FormatError(
            f"{net_path}: its Data layer has {len(told.mean_value)} mean_values for "
            f"{channels} channels; Caffe takes one, or one a channel"
        )
    values = np.array(told.mean_value, np.float32).reshape(-1, 1, 1)
    return np.broadcast_to(values, (channels, 1, 1))
