"""Prototxt files: nets and solvers as messages, read from text and written back."""

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import EncodeError, Message

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.files import existing_file, write_text
from pycaffe_prune.formats.upgrade import upgrade_net

__all__ = ["read_net", "read_solver", "refuse_python_layers", "write_prototxt"]

_M = TypeVar("_M", bound=Message)


def _read(path: Path, message: _M, what: str) -> _M:
    existing_file(path, what)
    try:
        text = path.read_text(encoding="utf-8")
        text_format.Parse(text, message)
        message.SerializeToString()  # parsing does not ask for required fields, writing does
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not text (byte {error.start}); {what} is needed") from error
    except text_format.ParseError as error:
        raise FormatError(f"{path}:{error}; {what} is needed") from error
    except EncodeError as error:
        raise FormatError(f"{path}: {error}; {what} is needed") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    return message


def read_net(path: Path) -> NetParameter:
    """Read a net prototxt; old forms come upgraded as Caffe upgrades them (`formats.upgrade`).

    Raises:
        FormatError: The file is missing, no text, or against the schema (with line and column), or
            an old form cannot be upgraded.
    """
    what = "a net prototxt"
    net = _read(path, NetParameter(), what)
    try:
        net = upgrade_net(net)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    if not net.layer:
        raise FormatError(f"{path}: holds no layer; {what} is needed")
    return net


def read_solver(path: Path) -> SolverParameter:
    """Read a solver prototxt.

    Raises:
        FormatError: The file is missing, no text, or against the schema (with line and column).
    """
    return _read(path, SolverParameter(), "a solver prototxt")


def write_prototxt(path: Path, message: NetParameter | SolverParameter) -> None:
    """Write a net or a solver as text, atomically; `read_net` and `read_solver` give it back."""
    write_text(path, text_format.MessageToString(message))


def refuse_python_layers(net: NetParameter, source: Path) -> None:
    """Refuse a net with ``Python`` layers: they run code that its file names.

    Raises:
        FormatError: There is one; files that people share are not trusted.
    """
    for layer in net.layer:
        if layer.type == "Python":
            module = layer.python_param.module
            raise FormatError(
                f"{source}: layer '{layer.name}' is a Python layer that would run the module "
                f"'{module}'; such nets are refused. Replace the layer by one of Caffe's own."
            )
