"""What a run is: the same one in a moved folder, another one with other data."""

import shutil
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run import train
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import Datum


def ignore(event: Event) -> None:
    """An observer that looks away."""


def correct_a_label(folder: Path) -> None:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        key, value = next(iter(transaction.cursor()))
        datum = Datum.FromString(value)
        datum.label = (datum.label + 1) % 10
        transaction.put(key, datum.SerializeToString())


def test_a_run_is_known_by_what_is_in_its_data(tmp_path: Path, request_for, digits, engine) -> None:
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    request = request_for(max_iter=4)
    result = train(request, tmp_path / "run", engine, ignore)
    moved = replace(request, data=data)
    assert train(moved, tmp_path / "run", engine, ignore) == result  # copied data: the same run
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert train(moved, tmp_path / "elsewhere", engine, ignore) == result
    correct_a_label(data / "mnist_train_lmdb")
    told = r"other content in the records of the LMDB mnist_train_lmdb that layer 'data' \(Data, T"
    with pytest.raises(FormatError, match=f"holds another run: {told}RAIN.* reads; choose"):
        train(moved, tmp_path / "elsewhere", engine, ignore)
    other = train(moved, tmp_path / "new", engine, ignore)
    assert other.weights_sha256 != result.weights_sha256
