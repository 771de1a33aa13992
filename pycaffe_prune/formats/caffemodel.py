"""Caffemodels: every layer's definition and its blobs as NumPy arrays, read and written.

Reading maps the file and copies nothing; writing streams the arrays. A file that Caffe saved comes
out byte for byte as it was when nothing is changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import EncodeError, Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.blobs import (
    Blob,
    mapped_file,
    naming_file,
    read_blob,
    read_diff,
    squeeze_legacy,
    write_blob,
    written_size,
)
from pycaffe_prune.formats.caffe_pb2 import (
    LayerParameter,
    NetParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from pycaffe_prune.formats.clashes import set_apart_rounding
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.upgrade import upgrade_net
from pycaffe_prune.formats.upgrade_v0 import PADDING
from pycaffe_prune.formats.wire_text import message_bytes, message_of

__all__ = [
    "BlobKey",
    "Caffemodel",
    "Layer",
    "caffemodel_size",
    "naming_blob",
    "read_caffemodel",
    "read_diffs",
    "require_text",
    "write_caffemodel",
]

BlobKey = tuple[str, int]
"""A blob's place: the layer's name and the position among its blobs (0 weight, 1 bias)."""

_WHAT = "a binary .caffemodel"
_LAYER = NetParameter.LAYER_FIELD_NUMBER
_V1_LAYER = NetParameter.LAYERS_FIELD_NUMBER
_BLOBS = LayerParameter.BLOBS_FIELD_NUMBER
_V1_BLOBS = V1LayerParameter.BLOBS_FIELD_NUMBER
_V0_LAYER = V1LayerParameter.LAYER_FIELD_NUMBER
_V0_BLOBS = V0LayerParameter.BLOBS_FIELD_NUMBER


@dataclass(frozen=True)
class Layer:
    """One layer of a caffemodel: its definition (without blobs) and its blobs."""

    param: LayerParameter
    blobs: tuple[Blob, ...] = ()
    diffs: tuple[Blob, ...] = ()
    """Gradients to write, one a blob; reading leaves out those of a file (but see `read_diffs`)."""

    @property
    def with_diffs(self) -> list[tuple[Blob, Blob | None]]:
        """Each blob with its gradients, None where there are none to write."""
        diffs = self.diffs or (None,) * len(self.blobs)
        return list(zip(self.blobs, diffs, strict=True))

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


@contextmanager
def naming_blob(layer: str, index: int) -> Iterator[None]:
    """Put the blob's place before the sentence of a `FormatError` from the body."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"layer '{layer}', blob {index}: {error}") from error


def read_caffemodel(path: Path) -> Caffemodel:
    """Read a binary caffemodel of the V2 (``layer``), V1 (``layers``) or V0 form.

    Names need not be UTF-8 (`formats.text_bytes`); fields of numbers that stock Caffe does not know
    stay with their layer, and are written as they were.

    The blobs are read-only float32 views of the mapped file. Legacy four-dimensional shapes are
    squeezed by the layer's type. Definitions of the V1 and V0 forms come upgraded as Caffe upgrades
    them (`formats.upgrade`); those of the V2 form stay as they are, since loading ignores them.

    Raises:
        FormatError: The file is missing, truncated, damaged, or no caffemodel.
    """
    buffer = mapped_file(path, _WHAT)
    with naming_file(path, _WHAT):
        header = bytearray()
        net_layers = NetParameter()
        places: list[list[wire.Field]] = []
        for part in wire.fields(buffer, 0, len(buffer)):
            if part.number in (_LAYER, _V1_LAYER) and part.wire_type == wire.LENGTH:
                definition, blob_places = _split_layer(buffer, part)
                if isinstance(definition, LayerParameter):
                    net_layers.layer.append(definition)
                else:
                    net_layers.layers.append(definition)
                    if definition.layer.type == PADDING:  # folded into the layer after it
                        continue
                places.append(blob_places)
            else:
                header += buffer[part.tag : part.end]
        if not net_layers.ListFields():
            raise FormatError("holds no layer")
        net = message_of(bytes(header), NetParameter)
        net.MergeFrom(net_layers)
        if net.layers:
            net = upgrade_net(net)
        set_apart_rounding(net.layer)
        places = [[]] * (len(net.layer) - len(places)) + places  # an Input layer made of `input`
        layers = [
            _read_layer(buffer, param, blob_places)
            for param, blob_places in zip(net.layer, places, strict=True)
        ]
        without_layers = NetParameter()
        without_layers.CopyFrom(net)
        without_layers.ClearField("layer")
    return Caffemodel(tuple(layers), without_layers)


def read_diffs(path: Path) -> dict[BlobKey, Blob]:
    """Read the gradients that a binary caffemodel holds beside its blobs (``snapshot_diff``).

    Returns:
        Those of each blob that has some, as one axis.

    Raises:
        FormatError: The file is missing, truncated, damaged, or no caffemodel.
    """
    buffer = mapped_file(path, _WHAT)
    found: dict[BlobKey, Blob] = {}
    with naming_file(path, _WHAT):
        for part in wire.fields(buffer, 0, len(buffer)):
            if part.number in (_LAYER, _V1_LAYER) and part.wire_type == wire.LENGTH:
                definition, places = _split_layer(buffer, part)
                name = _name_of(definition)
                for index, place in enumerate(places):
                    with naming_blob(name, index):
                        diff = read_diff(buffer, place.start, place.end)
                    if diff.size:
                        found.setdefault((name, index), diff)
    return found


def _name_of(definition: LayerParameter | V1LayerParameter) -> str:
    if isinstance(definition, V1LayerParameter) and definition.HasField("layer"):
        return definition.layer.name
    return definition.name


def _split_layer(
    buffer: memoryview, part: wire.Field
) -> tuple[LayerParameter | V1LayerParameter, list[wire.Field]]:
    """A layer's definition without its blobs, and where these lie."""
    if part.number == _LAYER:
        header, places = _split(buffer, part, _BLOBS)
        definition: LayerParameter | V1LayerParameter = message_of(header, LayerParameter)
    else:
        header, places = _split(buffer, part, _V1_BLOBS, _V0_LAYER)
        definition = message_of(header, V1LayerParameter)
    return definition, places


def _split(
    buffer: memoryview, part: wire.Field, blobs: int, v0_layer: int | None = None
) -> tuple[bytes, list[wire.Field]]:
    """The bytes of a layer's message without its blobs (field ``blobs``), and their places.

    A V0 layer lies in field ``v0_layer`` of a V1 layer, which then has no blobs of its own.
    """
    header = bytearray()
    places = []
    v0_places = None
    for inner in wire.fields(buffer, part.start, part.end):
        if inner.wire_type == wire.LENGTH and inner.number == blobs:
            places.append(inner)
        elif inner.wire_type == wire.LENGTH and inner.number == v0_layer:
            v0_header, v0_places = _split(buffer, inner, _V0_BLOBS)
            header += wire.encode_varint(v0_layer << 3 | wire.LENGTH)
            header += wire.encode_varint(len(v0_header)) + v0_header
        else:
            header += buffer[inner.tag : inner.end]
    return bytes(header), places if v0_places is None else v0_places


def require_text(message: Message, what: str) -> None:
    """Refuse strings that are not UTF-8, which protobuf hands out as bytes.

    Raises:
        FormatError: ``message`` has one in a field of its own; ``what`` says what the message is.
    """
    for field_, value in message.ListFields():
        if field_.type == field_.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in texts):
                raise FormatError(f"has {what} whose '{field_.name}' is not UTF-8 text")


def _read_layer(buffer: memoryview, param: LayerParameter, places: list[wire.Field]) -> Layer:
    definition = LayerParameter()
    definition.CopyFrom(param)
    try:
        definition.SerializeToString()  # parsing does not ask for required fields, writing does
    except EncodeError as error:
        raise FormatError(f"layer '{param.name}': {error}") from error
    blobs = []
    for index, place in enumerate(places):
        with naming_blob(param.name, index):
            blob, legacy = read_blob(buffer, place.start, place.end)
        blobs.append(squeeze_legacy(blob, param.type, index) if legacy else blob)
    return Layer(definition, tuple(blobs))


def write_caffemodel(path: Path, model: Caffemodel) -> None:
    """Write ``model`` as Caffe does (V2 layers, shapes, packed float32), atomically.

    What a layer carries from a prototxt as text has no place in such a file (`formats.carried`).

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(message_bytes(model.net))
        for layer in model.layers:
            _write_layer(file, layer)


def _write_layer(file: BinaryIO, layer: Layer) -> None:
    # Caffe writes fields by number: what comes before the blobs, the blobs, what comes after.
    header = memoryview(message_bytes(layer.param))
    split = next(
        (part.tag for part in wire.fields(header, 0, len(header)) if part.number > _BLOBS),
        len(header),
    )
    file.write(_layer_tag(_layer_length(header, layer)))
    file.write(header[:split])
    for blob, diff in layer.with_diffs:
        write_blob(file, blob, _BLOBS, diff)
    file.write(header[split:])


def _layer_length(header: bytes | memoryview, layer: Layer) -> int:
    return len(header) + sum(written_size(blob, _BLOBS, diff) for blob, diff in layer.with_diffs)


def _layer_tag(length: int) -> bytes:
    return wire.encode_varint(_LAYER << 3 | wire.LENGTH) + wire.encode_varint(length)


def caffemodel_size(model: Caffemodel) -> int:
    """Return how many bytes `write_caffemodel` writes; nothing is written."""
    lengths = [_layer_length(message_bytes(layer.param), layer) for layer in model.layers]
    return len(message_bytes(model.net)) + sum(
        len(_layer_tag(length)) + length for length in lengths
    )
