"""What layers of a trusted net may do: import modules from where, and write files to where."""

import os
from pathlib import Path, PurePosixPath

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter

__all__ = [
    "OUTPUT_FOLDER",
    "anchored_output",
    "confine_output",
    "make_output_folders",
    "module_folders",
]

OUTPUT_FOLDER = "layer_output"
"""In a run's folder: so no layer overwrites a file of the run itself."""


def confine_output(net: NetParameter, source: Path) -> None:
    """Have a net's HDF5Output layers write into `OUTPUT_FOLDER` of the folder that it is run in.

    Args:
        net: Is changed; workers open the files in the run's folder (`HDF5OutputLayer::LayerSetUp`
            of `src/caffe/layers/hdf5_output_layer.cpp`).
        source: Where it was read from.

    Raises:
        FormatError: A name of a file leads elsewhere.
    """
    for layer in net.layer:
        if layer.type != "HDF5Output":
            continue
        name = PurePosixPath(layer.hdf5_output_param.file_name)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise FormatError(
                f"{source}: layer '{layer.name}' (HDF5Output) writes the file '{name}'; layers "
                f"write below {OUTPUT_FOLDER} of the run's folder alone, so give it a relative "
                "path without '..'"
            )
        layer.hdf5_output_param.file_name = f"{OUTPUT_FOLDER}/{name}"


def make_output_folders(net: NetParameter, folder: Path) -> None:
    """Make the folders into which the layers of a net from `confine_output` write.

    Args:
        net: The net.
        folder: The run's.

    Raises:
        FormatError: A link leads out of the run's folder.
        OSError: One cannot be made.
    """
    for layer in net.layer:
        if layer.type == "HDF5Output":
            _file_below(layer, folder).parent.mkdir(parents=True, exist_ok=True)


def anchored_output(net: NetParameter, folder: Path) -> NetParameter:
    """Return a net from `confine_output` whose layers write below ``folder`` wherever it is run.

    Args:
        net: The net, as it lies in the run's folder.
        folder: The run's.

    Raises:
        FormatError: A file would lie elsewhere.
    """
    anchored = NetParameter()
    anchored.CopyFrom(net)
    for layer in anchored.layer:
        if layer.type == "HDF5Output":
            layer.hdf5_output_param.file_name = str(_file_below(layer, folder))
    return anchored


def _file_below(layer: LayerParameter, folder: Path) -> Path:
    file = folder / layer.hdf5_output_param.file_name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{file}: leads to {file.resolve()}, out of the run's folder")
    return file


def module_folders(*files: Path) -> tuple[str, ...]:
    """Return the folders in which the modules of Python layers are looked for.

    Args:
        files: Solver and nets: a module may lie beside them. The folders of ``PYTHONPATH`` follow,
            which the real Caffe of the private prefix does not see by itself.
    """
    beside = (str(file.resolve().parent) for file in files)
    named = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return tuple(dict.fromkeys((*beside, *(str(Path(folder).resolve()) for folder in named))))
