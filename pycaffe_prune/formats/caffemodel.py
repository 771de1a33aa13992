"""Caffemodels: every layer's definition and its blobs as NumPy arrays, read and written.

Reading maps the file and copies nothing; writing streams the arrays. A file that Caffe saved comes
out byte for byte as it was when nothing is changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import EncodeError

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.blobs import (
    Blob,
    mapped_file,
    naming_file,
    read_blob,
    squeeze_legacy,
    write_blob,
    written_size,
)
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.upgrade import upgrade_v1_layer

__all__ = ["BlobKey", "Caffemodel", "Layer", "read_caffemodel", "write_caffemodel"]

BlobKey = tuple[str, int]
"""A blob's place: the layer's name and the position among its blobs (0 weight, 1 bias)."""

_WHAT = "a binary .caffemodel"
_LAYER = NetParameter.LAYER_FIELD_NUMBER
_V1_LAYER = NetParameter.LAYERS_FIELD_NUMBER
_BLOBS = LayerParameter.BLOBS_FIELD_NUMBER
_V1_BLOBS = V1LayerParameter.BLOBS_FIELD_NUMBER


@dataclass(frozen=True)
class Layer:
    """One layer of a caffemodel: its definition (without blobs) and its blobs."""

    param: LayerParameter
    blobs: tuple[Blob, ...] = ()

    @property
    def name(self) -> str:
        """The layer's name, by which Caffe finds it when it loads weights."""
        return self.param.name

    @property
    def type(self) -> str:
        """Caffe's type string, e.g. ``InnerProduct``."""
        return self.param.type


@dataclass(frozen=True)
class Caffemodel:
    """A NetParameter with weights: ``net`` holds all its fields but the layers."""

    layers: tuple[Layer, ...]
    net: NetParameter = field(default_factory=NetParameter)

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``.

        Raises:
            FormatError: There is none; the sentence lists those that hold blobs.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers if layer.blobs) or "none"
        raise FormatError(f"the caffemodel has no layer '{name}'; layers with blobs: {names}")

    def blobs(self) -> Iterator[tuple[BlobKey, Blob]]:
        """Yield each blob with its place, in file order."""
        for layer in self.layers:
            for index, blob in enumerate(layer.blobs):
                yield (layer.name, index), blob

    def with_blobs(self, changed: Mapping[BlobKey, Blob]) -> "Caffemodel":
        """Return a model in which the given blobs are replaced; the others are shared.

        Raises:
            FormatError: A place in ``changed`` does not exist.
        """
        for name, index in changed:
            if not 0 <= index < len(self.layer(name).blobs):
                raise FormatError(f"layer '{name}' has no blob {index}")
        return replace(
            self,
            layers=tuple(
                replace(
                    layer,
                    blobs=tuple(
                        changed.get((layer.name, index), blob)
                        for index, blob in enumerate(layer.blobs)
                    ),
                )
                for layer in self.layers
            ),
        )


def read_caffemodel(path: Path) -> Caffemodel:
    """Read a binary caffemodel of the V2 (``layer``) or V1 (``layers``) form.

    The blobs are read-only float32 views of the mapped file. Legacy four-dimensional shapes are
    squeezed by the layer's type; V1 definitions come upgraded (`formats.upgrade`).

    Raises:
        FormatError: The file is missing, truncated, damaged, or no caffemodel.
    """
    buffer = mapped_file(path, _WHAT)
    with naming_file(path, _WHAT):
        header = bytearray()
        layers = []
        forms = set()
        for part in wire.fields(buffer, 0, len(buffer)):
            if part.number in (_LAYER, _V1_LAYER) and part.wire_type == wire.LENGTH:
                layers.append(_read_layer(buffer, part))
                forms.add(part.number)
            else:
                header += buffer[part.tag : part.end]
        if len(forms) > 1:
            raise FormatError("holds both 'layer' and 'layers'; Caffe reads only one of the two")
        net = NetParameter.FromString(bytes(header))
        if not layers:
            raise FormatError("holds no layer")
    return Caffemodel(tuple(layers), net)


def _read_layer(buffer: memoryview, part: wire.Field) -> Layer:
    is_v1 = part.number == _V1_LAYER
    blobs_field = _V1_BLOBS if is_v1 else _BLOBS
    header = bytearray()
    places = []
    for inner in wire.fields(buffer, part.start, part.end):
        if inner.number == blobs_field and inner.wire_type == wire.LENGTH:
            places.append(inner)
        else:
            header += buffer[inner.tag : inner.end]
    param = _definition(bytes(header), is_v1)
    blobs = []
    for index, place in enumerate(places):
        try:
            blob, legacy = read_blob(buffer, place.start, place.end)
        except FormatError as error:
            raise FormatError(f"layer '{param.name}', blob {index}: {error}") from error
        blobs.append(squeeze_legacy(blob, param.type, index) if legacy else blob)
    return Layer(param, tuple(blobs))


def _definition(header: bytes, is_v1: bool) -> LayerParameter:
    read = (V1LayerParameter if is_v1 else LayerParameter).FromString(header)
    for field_, value in read.ListFields():
        # protobuf hands out a string that is not UTF-8 as bytes.
        if field_.type == field_.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in texts):
                raise FormatError(f"has a layer whose '{field_.name}' is not UTF-8 text")
    param = upgrade_v1_layer(read) if isinstance(read, V1LayerParameter) else read
    try:
        param.SerializeToString()  # parsing does not ask for required fields, writing does
    except EncodeError as error:
        raise FormatError(f"layer '{param.name}': {error}") from error
    return param


def write_caffemodel(path: Path, model: Caffemodel) -> None:
    """Write ``model`` as Caffe does (V2 layers, shapes, packed float32), atomically.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(model.net.SerializeToString())
        for layer in model.layers:
            _write_layer(file, layer)


def _write_layer(file: BinaryIO, layer: Layer) -> None:
    # Caffe writes fields by number: what comes before the blobs, the blobs, what comes after.
    header = memoryview(layer.param.SerializeToString())
    split = next(
        (part.tag for part in wire.fields(header, 0, len(header)) if part.number > _BLOBS),
        len(header),
    )
    length = len(header) + sum(written_size(blob, _BLOBS) for blob in layer.blobs)
    file.write(wire.encode_varint(_LAYER << 3 | wire.LENGTH) + wire.encode_varint(length))
    file.write(header[:split])
    for blob in layer.blobs:
        write_blob(file, blob, _BLOBS)
    file.write(header[split:])
