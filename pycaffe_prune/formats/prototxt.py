"""Prototxt files: nets and solvers as messages, read from text and written back."""

from itertools import chain
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import EncodeError, Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.carried import carried_fields, parse_text, to_text
from pycaffe_prune.formats.field_lines import with_line
from pycaffe_prune.formats.files import atomic_write, existing_file
from pycaffe_prune.formats.text_bytes import bytes_of, text_of
from pycaffe_prune.formats.upgrade import upgrade_net, upgrade_solver

__all__ = ["read_net", "read_solver", "refuse_carried", "write_prototxt"]

_M = TypeVar("_M", bound=Message)
_REMEDY = (
    "Correct or remove it, or use one of Caffe's own; convert --to stock does so for common forks."
)


def _read(path: Path, message: _M, what: str) -> _M:
    existing_file(path, what)
    try:
        data = path.read_bytes()
        if (nul := data.find(0)) >= 0:
            raise FormatError(f"{path}: is not text (byte {nul}); {what} is needed")
        text = text_of(data)
        parse_text(text, message)
        if not message.ListFields() and carried_fields(message):  # the text is of another kind
            text_format.Parse(text, message)
        message.SerializeToString()  # parsing does not ask for required fields, writing does
    except text_format.ParseError as error:
        raise FormatError(f"{path}:{error}; {what} is needed") from error
    except EncodeError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    return message


def read_net(path: Path) -> NetParameter:
    """Read a net prototxt; old forms come upgraded as Caffe upgrades them (`formats.upgrade`).

    Fields that stock Caffe does not know are carried (`formats.carried`), strings need not be
    UTF-8 (`formats.text_bytes`).

    Raises:
        FormatError: The file is missing, no text, or against the grammar or a known field's type
            (with line and column), or an old form cannot be upgraded.
    """
    what = "a net prototxt"
    net = _read(path, NetParameter(), what)
    try:
        net = upgrade_net(net)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    if not net.layer:
        unknown = "".join(
            f"; stock Caffe does not know {field} ({with_line(path, net, field.text)})"
            for field in carried_fields(net)[:1]
        )
        raise FormatError(f"{path}: holds no layer; {what} is needed{unknown}")
    return net


def read_solver(path: Path) -> SolverParameter:
    """Read a solver prototxt; fields that stock Caffe does not know are carried.

    The old ``solver_type`` comes as ``type``.

    Raises:
        FormatError: The file is missing, no text, or against the grammar or a known field's type
            (with line and column), or has both forms of the type.
    """
    solver = _read(path, SolverParameter(), "a solver prototxt")
    try:
        return upgrade_solver(solver)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def write_prototxt(path: Path, message: NetParameter | SolverParameter) -> None:
    """Write a net or a solver as text, atomically; `read_net` and `read_solver` give it back.

    Raises:
        FormatError: A layer has a field that stock Caffe does not know and that a caffemodel has
            under a number alone.
        PruneError: The folder cannot be written to or the disk is full.
    """
    _refuse_numbers(message, path)
    data = bytes_of(to_text(message))
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _refuse_numbers(message: NetParameter | SolverParameter, path: Path) -> None:
    layers = message.layer if isinstance(message, NetParameter) else ()
    for layer in (*layers, message):
        owner = (
            f"layer '{layer.name}' ({layer.type})" if isinstance(layer, LayerParameter) else "it"
        )
        for field in carried_fields(layer):
            if not field.text:
                raise FormatError(
                    f"{path}: cannot be written: {owner} has the field {field} in its file of "
                    "weights, a number that stock Caffe does not know or that forks gave another "
                    "meaning, and a prototxt needs its name; give the model's own prototxt"
                )


def refuse_carried(message: NetParameter | SolverParameter, source: Path, purpose: str) -> None:
    """Refuse what stock Caffe does not know, for a ``purpose`` that needs to know all of it.

    Raises:
        FormatError: ``message`` carries a field of a fork, or one whose name is misspelt; the
            sentence names line, layer and field, and a stock field of a similar name.
    """
    layers = message.layer if isinstance(message, NetParameter) else message.net_param.layer
    of_layers = (
        (f"layer '{layer.name}' ({layer.type}) ", field)
        for layer in layers
        for field in carried_fields(layer)
    )
    for owner, field in chain(of_layers, (("", field) for field in carried_fields(message))):
        raise FormatError(
            f"{with_line(source, message, field.text)}: {owner}has the field {field}, which stock "
            f"Caffe does not know; {purpose} needs its meaning. {_REMEDY}"
        )
