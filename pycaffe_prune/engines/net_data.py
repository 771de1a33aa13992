"""The data layers of a net: where their data lie, how many there are, when they come round."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.net_files import listed_files
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    DataParameter,
    ImageDataParameter,
    LayerParameter,
    NetParameter,
    WindowDataParameter,
)
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.formats.lmdb_file import LmdbFile
from pycaffe_prune.net.shape_pyramid import draws_values

__all__ = [
    "batch_size",
    "data_layer_of",
    "is_lmdb",
    "records",
    "refuse_unfed",
    "replay_plan",
    "resolve_databases",
    "resolve_lists",
]

_DRAWING = frozenset({"Dropout", "DummyData", "HDF5Data", "ImageData", "MemoryData", "WindowData"})
"""Layers whose state lies outside the solverstate: replayed one forward at a time on resume."""


def batch_size(layer: LayerParameter) -> int | None:
    """Return the ``batch_size`` of a layer that reads files; None for other layers."""
    return {
        "Data": layer.data_param.batch_size,
        "ImageData": layer.image_data_param.batch_size,
        "HDF5Data": layer.hdf5_data_param.batch_size,
        "WindowData": layer.window_data_param.batch_size,
    }.get(layer.type)


def data_layer_of(layers: Sequence[LayerParameter], blob: str) -> LayerParameter | None:
    """Return the layer without bottoms that a blob comes from, by first bottoms; None: from none.

    Args:
        layers: Those of one state of a net, in its order.
        blob: A blob's name; its last version counts.
    """
    for layer in reversed(layers):
        if blob in layer.top:
            if not layer.bottom:
                return layer
            blob = layer.bottom[0]
    return None


def resolve_databases(net: NetParameter, net_path: Path, folder: DataFolder) -> None:
    """Make the paths of LMDBs and mean files absolute, and see that they are there.

    Args:
        net: Is changed.
        net_path: Where it was read from.
        folder: Where paths are looked up, whole and by their last parts, and what may be read.

    Raises:
        DataError: An LMDB is missing, damaged or empty, or two names lead to one place.
        FormatError: A mean file is missing, a Data layer has no batch_size or a LevelDB, or a file
            lies where it may not be read.
    """
    for layer in net.layer:
        if layer.type == "Data":
            source, tried = folder.find(layer.data_param.source, is_lmdb)
            _require_lmdb_backend(layer, net_path)
            layer.data_param.source = str(source)
            folder.readable.require([source / "data.mdb"])
            records(layer, net_path, tried[1:])
            if not layer.data_param.batch_size:
                raise FormatError(
                    f"{net_path}: layer '{layer.name}' (Data) has no batch_size; say how many "
                    "images a batch has"
                )
        if layer.transform_param.mean_file:
            mean = folder.file(layer.transform_param.mean_file, "a mean image")
            layer.transform_param.mean_file = str(mean)


def _require_lmdb_backend(layer: LayerParameter, net_path: Path) -> None:
    """Refuse LevelDBs: no engine here can tell what is in them, nor how many records there are."""
    told = layer.data_param
    if told.backend == DataParameter.LMDB:
        return
    has = "backend: LEVELDB" if told.HasField("backend") else "no backend, which means LEVELDB"
    raise FormatError(
        f"{net_path}: layer '{layer.name}' (Data) has {has}, and LevelDBs ('{told.source}') are "
        "not read here, by no engine; make an LMDB of the same images (Caffe's convert_imageset "
        "--backend=lmdb) and say backend: LMDB"
    )


def resolve_lists(net: NetParameter, net_path: Path, folder: DataFolder) -> None:
    """Make the paths of lists, and of Infogain matrices, absolute: workers change their folder.

    Args:
        net: Is changed.
        net_path: Where it was read from.
        folder: As for `resolve_databases`.

    Raises:
        FormatError: A file is missing or lies where it may not be read, or a list of HDF5 files
            names them by relative paths.
    """
    for layer in net.layer:
        if layer.type == "ImageData":
            _resolve_images(layer.image_data_param, 0, folder)
        if layer.type == "WindowData":
            _resolve_images(layer.window_data_param, 2, folder)
        if layer.infogain_loss_param.source:
            gains = folder.file(layer.infogain_loss_param.source, "an Infogain matrix")
            layer.infogain_loss_param.source = str(gains)
        if layer.type == "HDF5Data":
            source = folder.file(layer.hdf5_data_param.source, "a list of HDF5 files")
            layer.hdf5_data_param.source = str(source)
            if lost := [name for name in _text(source).split() if not name.startswith("/")]:
                raise FormatError(
                    f"{net_path}: layer '{layer.name}' (HDF5Data): the list {source} names "
                    f"'{lost[0]}', which Caffe looks up in whatever folder it works in; write "
                    "absolute paths into it"
                )
        folder.readable.require(listed_files(layer))


def _resolve_images(
    told: ImageDataParameter | WindowDataParameter, first: int, folder: DataFolder
) -> None:
    """Resolve a list whose word number ``first`` is the path of an image."""
    source = folder.file(told.source, "a list of images")
    told.source = str(source)
    name = "".join(_text(source).split()[first : first + 1])
    if not f"{told.root_folder}{name}".startswith("/"):
        told.root_folder = f"{(folder.folder or Path()).resolve()}/{told.root_folder}"


def _text(source: Path) -> str:
    return source.read_text(encoding="utf-8", errors="surrogateescape")


def refuse_unfed(train: Iterable[LayerParameter], net_path: Path) -> None:
    """Refuse to train by MemoryData, at which Caffe's tool ends: only a program can feed it.

    Raises:
        FormatError: A layer of the TRAIN net is of that type.
    """
    for layer in train:
        if layer.type == "MemoryData":
            raise FormatError(
                f"{net_path}: layer '{layer.name}' (MemoryData) is fed by a program that holds the "
                "net, and has no data in a training from files; bring them with a Data, ImageData "
                "or HDF5Data layer"
            )


def is_lmdb(path: Path) -> bool:
    """Return whether there is an LMDB in the folder ``path``."""
    return (path / "data.mdb").is_file()


def records(layer: LayerParameter, net_path: Path | None = None, tried: Sequence[Path] = ()) -> int:
    """Return how many records the LMDB of a Data layer holds.

    Args:
        layer: Its ``source`` is a path as it is.
        net_path: Where the net was read from.
        tried: Other places where the LMDB is not.

    Raises:
        DataError: It is missing, damaged or empty.
    """
    source = Path(layer.data_param.source)
    where = f"{net_path or 'net'}: layer '{layer.name}'"
    remedy = "build it with `caffe-prune data …` and name its folder with --data"
    if not is_lmdb(source):
        others = "".join(f", nor at {place}" for place in tried)
        raise DataError(f"{where}: there is no LMDB at {source}{others}; {remedy}")
    try:
        existing_file(source / "data.mdb", "an LMDB's data.mdb")
        with LmdbFile(source) as database:
            count = database.entries
    except DataError as error:
        raise DataError(f"{where}: the LMDB {error}; {remedy}") from error
    if count == 0:
        raise DataError(f"{where}: the LMDB {source} is empty; {remedy}")
    return count


def replay_plan(train: Iterable[LayerParameter]) -> Iterator[tuple[str, int]]:
    """Yield the layers to bring back to their place on resume, as `Job.replay` has them."""
    for layer in train:
        if layer.type == "Data":
            random = layer.transform_param.mirror or layer.transform_param.crop_size
            count = records(layer)
            period = count // math.gcd(count, layer.data_param.batch_size)
            yield layer.name, 0 if random else period
        elif layer.type in _DRAWING or draws_values(layer):
            yield layer.name, 0
