import fcntl
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.data.hdf5_source import Hdf5Source
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from tests.engines.torch.data.datums import batches

CPU = torch.device("cpu")


def layer_of(source: Path, told: str = "batch_size: 2") -> LayerParameter:
    text = (
        'name: "data" type: "HDF5Data" top: "data" top: "label" '
        f'hdf5_data_param {{ source: "{source}" {told} }}'
    )
    return text_format.Parse(text, LayerParameter())


def listed(folder: Path, rows: Sequence[int]) -> Path:
    """Files of which row n of all has label n."""
    start = 0
    for number, count in enumerate(rows):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["label"] = np.arange(start, start + count)
            file["data"] = np.arange(start, start + count)[:, None] * np.ones(3)
        start += count
    (folder / "list.txt").write_text("".join(f"{folder}/{n}.h5\n" for n in range(len(rows))))
    return folder / "list.txt"


def labels_of(layer: LayerParameter, forwards: int, seed: int = 1, seek: int = 0) -> list[float]:
    source = Hdf5Source(layer, CPU, seed)
    source.seek(seek)
    data, labels = batches(source, forwards)
    np.testing.assert_array_equal(np.concatenate(data)[:, 2], np.concatenate(labels))
    return np.concatenate(labels).tolist()


@settings(max_examples=6)
@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    batch=st.integers(1, 9),
    seek=st.integers(0, 12),
    shuffle=st.booleans(),
)
def test_each_pass_brings_every_row_once_and_can_be_gone_to(
    rows: list[int], batch: int, seek: int, shuffle: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layer = layer_of(listed(tmp_path_factory.mktemp("hdf5"), rows), f"batch_size: {batch}")
    layer.hdf5_data_param.shuffle = shuffle
    walked, count = labels_of(layer, seek + 2), sum(rows)
    assert labels_of(layer, 2, seek=seek) == walked[seek * batch :]
    for start in range(0, len(walked) - count + 1, count):
        found = walked[start : start + count]
        assert (sorted(found) if shuffle else found) == list(range(count))


def test_shuffling_keeps_files_together_and_differs_from_pass_to_pass(tmp_path: Path) -> None:
    layer = layer_of(listed(tmp_path, [5, 5, 5]), "batch_size: 15 shuffle: true")
    passes = [labels_of(layer, 1, seed, seek) for seed in (1, 2) for seek in range(10)]
    assert len({tuple(one) for one in passes}) == 20
    for one in passes:
        files = [int(label) // 5 for label in one]
        assert [len(set(files[at : at + 5])) for at in (0, 5, 10)] == [1, 1, 1]
    assert {int(one[0]) // 5 for one in passes} == {0, 1, 2}


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    def refuse(layer: LayerParameter, sentence: str) -> None:
        with pytest.raises(DataError, match=f"layer 'data'.*{sentence}"):
            Hdf5Source(layer, CPU, 1)

    source = listed(tmp_path, [2, 2])
    layer = layer_of(source)
    layer.transform_param.scale = 2
    refuse(layer, "has transform_param")
    layer = layer_of(source)
    layer.top.append("weight")
    refuse(layer, "0.h5: has no dataset 'weight'")
    with h5py.File(tmp_path / "1.h5", "a") as file:
        del file["data"]
        file["data"] = np.zeros((2, 4))
    refuse(layer_of(source), r"rows of .*1.h5 are 4, .*, those of .*0.h5 are 3")
    with h5py.File(tmp_path / "1.h5", "a") as file:
        del file["data"]
        file["data"] = np.zeros((3, 3))
    refuse(layer_of(source), "1.h5 have 3, 2 rows")
    with h5py.File(tmp_path / "1.h5", "a") as file:
        del file["label"]
        file["label"] = "words"
    refuse(layer_of(source), "1.h5: has no dataset 'label' of numbers")
    (tmp_path / "1.h5").write_bytes(b"no hdf5")
    refuse(layer_of(source), "1.h5: cannot be read .*; an HDF5 file of data is needed")
    (tmp_path / "1.h5").unlink()
    refuse(layer_of(source), "1.h5: no such file; an HDF5 file of data is needed")
    source.write_text("\n")
    refuse(layer_of(source), "list .* is empty")
    refuse(layer_of(tmp_path / "nowhere"), "nowhere cannot be read")


def test_a_file_that_another_reader_has_locked_is_read(tmp_path: Path) -> None:
    layer = layer_of(listed(tmp_path, [2]))
    with (tmp_path / "0.h5").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert labels_of(layer, 1) == [0, 1]
