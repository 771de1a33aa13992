import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from rich.console import Console

from data_prep.digits import build_digits
from data_prep.manifest import verify_manifest
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum


def test_the_sample_is_in_mnists_shape_and_in_its_own_order(
    tmp_path: Path, console: Console
) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    manifest = build_digits(tmp_path, console=console)
    assert (manifest.name, manifest.source, manifest.is_sample) == (
        "digits",
        "scikit-learn digits",
        True,
    )
    assert {name: split.count for name, split in manifest.splits.items()} == {
        "train": 1500,
        "test": 297,
    }
    assert verify_manifest(tmp_path) == manifest
    labels: list[int] = []
    images: list[np.ndarray] = []
    for name in ("train", "test"):
        path = tmp_path / f"mnist_{name}_lmdb"
        with lmdb.open(str(path), readonly=True, lock=False) as opened, opened.begin() as txn:
            for _, value in txn.cursor():
                datum = Datum.FromString(value)
                assert (datum.channels, datum.height, datum.width) == (1, 28, 28)
                labels.append(datum.label)
                images.append(np.frombuffer(datum.data, np.uint8).reshape(28, 28))
    assert labels == digits.target.tolist()
    for large, small in zip(images, digits.images, strict=True):
        # 28 = 3.5 × 8: a bilinear corner is the corner itself, and no value leaves the range.
        corners = np.ix_([0, -1], [0, -1])
        assert np.array_equal(large[corners], np.rint(small[corners] * 255 / 16))
        assert large.max() <= np.rint(small.max() * 255 / 16)
        assert abs(large.mean() - small.mean() * 255 / 16) < 8


def test_without_scikit_learn_the_remedy_is_named(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'pycaffe-prune\[sample\]'"):
        build_digits(tmp_path, console=console)
