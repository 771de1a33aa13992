"""A net's data with training images for test images: where settings are chosen."""

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_prep.hold_out import hold_out
from pycaffe_prune.engines.contents import lmdb_content
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter, Phase
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["data_set_of", "held_out_data"]

_DONE = "held_out.txt"


def held_out_data(net: NetParameter, data: DataFolder, out: Path, images: int) -> DataSet:
    """Make a folder in which the net's test images are training images that it is not trained on.

    What the folder holds already, of the same records, is kept.

    Args:
        net: Its TRAIN and its TEST phase have one Data layer each, on an LMDB.
        data: The whole data set.
        out: The folder to be made, for ``--data``.
        images: How many of the training images are held out.

    Raises:
        DataError: An LMDB is missing, damaged or too small, or cannot be written.
        FormatError: The net has other data.
    """
    train, test = (_source(net, phase) for phase in (TRAIN, TEST))
    names = [PurePosixPath(source.replace("\\", "/")).name for source in (train, test)]
    if names[0] == names[1]:
        raise FormatError(
            f"net '{net.name}': trains and tests on LMDBs of one name, '{names[0]}', and images "
            "are held out into a folder in which both are; give them names of their own"
        )
    source = _found(data, train)
    content = lmdb_content(source)
    said = f"{images} of {content.sha256}\n"
    training, held = (out / name for name in names)
    done = out / _DONE
    if not done.is_file() or done.read_text() != said:
        done.unlink(missing_ok=True)
        hold_out(source, training, held, images)
        for name in _mean_files(net):
            shutil.copy(data.file(name, "a mean image"), out / PurePosixPath(name).name)
        write_text(done, said)
    return _data_set(training, held)


def data_set_of(net: NetParameter, data: DataFolder) -> DataSet:
    """Return what a net trains and tests on in a folder, in one Data layer each.

    Raises:
        DataError: An LMDB is missing or damaged.
        FormatError: The net has other data.
    """
    return _data_set(*(_found(data, _source(net, phase)) for phase in (TRAIN, TEST)))


def _data_set(training: Path, test: Path) -> DataSet:
    contents = [lmdb_content(folder) for folder in (training, test)]
    return DataSet(
        name="held out",
        is_sample=False,
        train_images=contents[0].records,
        test_images=contents[1].records,
        train_sha256=contents[0].sha256,
        test_sha256=contents[1].sha256,
    )


def _found(data: DataFolder, source: str) -> Path:
    return data.find(source, lambda path: (path / "data.mdb").is_file())[0]


def _inputs(net: NetParameter, phase: Phase) -> Iterator[LayerParameter]:
    return (one for one in layers_in_state(net, NetState.of(net, phase)) if not one.bottom)


def _source(net: NetParameter, phase: Phase) -> str:
    found = list(_inputs(net, phase))
    name = "TRAIN" if phase == TRAIN else "TEST"
    if len(found) != 1 or found[0].type != "Data":
        told = ", ".join(f"'{layer.name}' ({layer.type})" for layer in found) or "none"
        raise FormatError(
            f"net '{net.name}': its data layers of the phase {name} are {told}; images are held "
            "out of the LMDB of one Data layer"
        )
    if found[0].data_param.backend != found[0].data_param.LMDB:
        raise FormatError(
            f"net '{net.name}': layer '{found[0].name}' reads a LevelDB; images are held out of "
            "LMDBs"
        )
    return found[0].data_param.source


def _mean_files(net: NetParameter) -> set[str]:
    layers = [layer for phase in (TRAIN, TEST) for layer in _inputs(net, phase)]
    named = {layer.transform_param.mean_file for layer in layers}
    return {name for name in named if name}
