"""What a net's data add to the keys of an experiment's stages, beside the data set's checksums."""

from collections.abc import Iterator
from pathlib import Path

from pycaffe_prune.engines.contents import lmdb_content
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.net_data import is_lmdb, resolve_lists
from pycaffe_prune.engines.net_files import net_files
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.files import sha256_of

__all__ = ["mean_images", "other_data"]


def mean_images(net: NetParameter, folder: DataFolder) -> Iterator[str]:
    """Yield the checksum of each mean image; where it is not there yet, its name.

    Raises:
        FormatError: One lies where it may not be read.
    """
    for layer in net.layer:
        if mean := layer.transform_param.mean_file:
            found, _ = folder.find(mean, Path.is_file)
            yield sha256_of(found) if found.is_file() else mean


def other_data(net: NetParameter, folder: DataFolder, data_set: DataSet) -> Iterator[str]:
    """Yield what ``net`` reads and ``data_set`` does not tell, or not truly: by content.

    Raises:
        FormatError: A file is missing, or lies where it may not be read.
    """
    others = NetParameter()
    for layer in net.layer:
        if layer.type != "Data":
            others.layer.add().CopyFrom(layer)
            others.layer[-1].ClearField("transform_param")  # the mean image is told already
            continue
        database, _ = folder.find(layer.data_param.source, is_lmdb)
        if is_lmdb(database):
            found = lmdb_content(database).sha256
            if found not in (data_set.train_sha256, data_set.test_sha256):
                yield found
    resolve_lists(others, folder.readable.source, folder)
    yield from (file.content.sha256 for file in net_files(others))
