"""Settings are chosen on images that are neither trained on nor tested on."""

from pathlib import Path

import pytest

from data_prep.digits import build_digits
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.compression.held_out import held_out_data
from pycaffe_prune.formats.lmdb_file import LmdbFile
from pycaffe_prune.formats.prototxt import read_net

LMDBS = ("mnist_train_lmdb", "mnist_test_lmdb")


def values(folder: Path) -> list[bytes]:
    with LmdbFile(folder) as database:
        return [value for _, value in database.records()]


def test_the_test_images_are_training_images_that_are_trained_on_no_more(
    tmp_path: Path, net_text: str
) -> None:
    build_digits(tmp_path / "data")
    path = tmp_path / "net.prototxt"
    path.write_text(net_text)
    data = DataFolder(tmp_path / "data", Readable.of(path, tmp_path / "data", trust=False))
    found = held_out_data(read_net(path), data, tmp_path / "out", 200)
    train, held = (values(tmp_path / "out" / name) for name in LMDBS)
    assert (found.train_images, found.test_images) == (len(train), len(held)) == (1300, 200)
    assert sorted(train + held) == sorted(values(tmp_path / "data" / LMDBS[0]))

    before = (tmp_path / "out" / LMDBS[0] / "data.mdb").stat().st_mtime_ns
    assert held_out_data(read_net(path), data, tmp_path / "out", 200) == found
    assert (tmp_path / "out" / LMDBS[0] / "data.mdb").stat().st_mtime_ns == before
    assert held_out_data(read_net(path), data, tmp_path / "out", 100).test_images == 100


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mnist_test_lmdb", "mnist_train_lmdb", "LMDBs of one name"),
        ("backend: LMDB", "backend: LEVELDB", "reads a LevelDB"),
        ('type: "Data"', 'type: "HDF5Data"', r"'d' \(HDF5Data\)"),
    ],
)
def test_other_data_is_refused_by_name(
    tmp_path: Path, net_text: str, old: str, new: str, said: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(net_text.replace(old, new))
    data = DataFolder(tmp_path, Readable.of(path, tmp_path, trust=False))
    with pytest.raises(FormatError, match=said):
        held_out_data(read_net(path), data, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()
