"""The files that a net's layers read: what is in them is part of what a run is, their names not."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.contents import Content, file_contents, lmdb_content
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, Phase
from pycaffe_prune.formats.files import existing_file, sha256_of

__all__ = ["FILE_FIELDS", "NetFile", "listed_files", "net_files", "refuse_files", "with_contents"]


@dataclass(frozen=True)
class NetFile:
    """A file, an LMDB or a list with all that it names, as one layer reads it."""

    place: int
    """The layer's, in the net."""
    message: str
    field: str
    """The field that names it is ``message``.``field`` of the layer."""
    reader: str
    """The layer, with its phase."""
    told: str
    """What it is and who reads it, for a sentence."""
    path: Path
    content: Content


_Find = Callable[[LayerParameter, Path], Content]


@dataclass(frozen=True)
class _Field:
    message: str
    name: str
    what: str
    is_read: Callable[[LayerParameter], bool]
    find: _Find


def net_files(net: NetParameter) -> list[NetFile]:
    """Return what the layers of ``net`` read, in its order.

    Args:
        net: With absolute paths (`engines.net_data.resolve_databases` and `resolve_lists`).

    Raises:
        DataError: An LMDB, a list or a file that it names is missing or damaged.
        FormatError: A mean image or a matrix is missing.
    """
    return [
        _found(place, layer, field)
        for place, layer in enumerate(net.layer)
        for field in _FIELDS
        if field.is_read(layer)
    ]


def _found(place: int, layer: LayerParameter, field: _Field) -> NetFile:
    path = Path(getattr(getattr(layer, field.message), field.name))
    phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
    phase = f", {Phase.Name(phases.pop())}" if len(phases) == 1 else ""
    reader = f"layer '{layer.name}' ({layer.type}{phase})"
    told = f"{field.what} {path.name} that {reader} reads"
    return NetFile(place, field.message, field.name, reader, told, path, field.find(layer, path))


def refuse_files(net: NetParameter, source: Path) -> None:
    """Refuse a net with a layer that reads a file, where all that it gets is handed to it.

    Raises:
        FormatError: There is one.
    """
    for layer in net.layer:
        for field in _FIELDS:
            if field.is_read(layer):
                name = getattr(getattr(layer, field.message), field.name)
                raise FormatError(
                    f"{source}: layer '{layer.name}' ({layer.type}) reads {field.what} '{name}', "
                    "and here a net has nothing read; --trust lets it, for a net of your own "
                    "(docs/trust.md)"
                )


def listed_files(layer: LayerParameter) -> list[str]:
    """Return the files that the list of a layer names; nothing for layers without a list.

    Args:
        layer: With absolute paths (`engines.net_data.resolve_lists`).
    """
    if layer.type == "ImageData":
        return [name for name, _ in _image_entries(layer, Path(layer.image_data_param.source))]
    if layer.type == "WindowData":
        return [name for name, _ in _window_entries(layer, Path(layer.window_data_param.source))]
    if layer.type == "HDF5Data":
        return _text(Path(layer.hdf5_data_param.source)).split()
    return []


def with_contents(net: NetParameter, files: Iterable[NetFile]) -> NetParameter:
    """Return ``net`` with checksums in the place of paths: equal ones compute the same."""
    portable = NetParameter()
    portable.CopyFrom(net)
    for file in files:
        message = getattr(portable.layer[file.place], file.message)
        setattr(message, file.field, file.content.sha256)
        if "root_folder" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("root_folder")
    return portable


def _lmdb(_layer: LayerParameter, path: Path) -> Content:
    return lmdb_content(path)


def _one_file(_layer: LayerParameter, path: Path) -> Content:
    return Content(sha256=sha256_of(existing_file(path, "a file that the net names")))


_Entry = tuple[str, str]
"""A file that a list names, and what the list says of it."""


def _image_entries(layer: LayerParameter, path: Path) -> list[_Entry]:
    """`ImageDataLayer::DataLayerSetUp` of `src/caffe/layers/image_data_layer.cpp`."""
    lines = [line.rpartition(" ") for line in _text(path).splitlines() if line.strip()]
    return [(layer.image_data_param.root_folder + name, label) for name, _, label in lines]


def _image_list(layer: LayerParameter, path: Path) -> Content:
    entries = _image_entries(layer, path)
    labels = [int(label) for _, label in entries if label.lstrip("-").isdecimal()]
    return Content(
        sha256=_checksum(path, entries),
        records=len(entries),
        labels=(min(labels), max(labels)) if labels else None,
    )


def _hdf5_list(_layer: LayerParameter, path: Path) -> Content:
    names = _text(path).split()
    return Content(sha256=_checksum(path, [(name, "") for name in names]), records=len(names))


def _window_file(layer: LayerParameter, path: Path) -> Content:
    entries = _window_entries(layer, path)
    return Content(sha256=_checksum(path, entries), records=len(entries))


def _window_entries(layer: LayerParameter, path: Path) -> list[_Entry]:
    """`WindowDataLayer::DataLayerSetUp` of `src/caffe/layers/window_data_layer.cpp`.

    Per image: ``# index``, its path, channels, height, width and the number of windows; then six
    numbers a window.
    """
    words, root = _text(path).split(), layer.window_data_param.root_folder
    entries: list[_Entry] = []
    place = 0
    while place + 7 <= len(words):
        windows = int(words[place + 6]) if words[place + 6].isdecimal() else 0
        end = place + 7 + 6 * windows
        entries.append((root + words[place + 2], " ".join(words[place + 3 : end])))
        place = end
    return entries


def _text(source: Path) -> str:
    return source.read_text(encoding="utf-8", errors="surrogateescape")


def _checksum(source: Path, entries: Sequence[tuple[str, str]]) -> str:
    """Over the content of each file in order, with what the list says of it."""
    if not entries:
        raise DataError(f"{source}: is empty; a list of files is needed")
    contents = file_contents((Path(name) for name, _ in entries), source)
    digest = hashlib.sha256()
    for name, rest in entries:
        digest.update(f"{contents[Path(name)].sha256} {rest}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _of(kind: str) -> Callable[[LayerParameter], bool]:
    return lambda layer: layer.type == kind


def _has_mean(layer: LayerParameter) -> bool:
    return bool(layer.transform_param.mean_file)


def _reads_gains(layer: LayerParameter) -> bool:
    """With a third bottom the file is not read (`src/caffe/layers/infogain_loss_layer.cpp`)."""
    return layer.type == "InfogainLoss" and len(layer.bottom) < 3


_FIELDS = (
    _Field("data_param", "source", "the records of the LMDB", _of("Data"), _lmdb),
    _Field("transform_param", "mean_file", "the mean image", _has_mean, _one_file),
    _Field("image_data_param", "source", "the images of the list", _of("ImageData"), _image_list),
    _Field("hdf5_data_param", "source", "the files of the list", _of("HDF5Data"), _hdf5_list),
    _Field("window_data_param", "source", "the windows of", _of("WindowData"), _window_file),
    _Field("infogain_loss_param", "source", "the Infogain matrix", _reads_gains, _one_file),
)


FILE_FIELDS = frozenset((field.message, field.name) for field in _FIELDS)
"""Message and field of all that names a file which a layer reads."""
