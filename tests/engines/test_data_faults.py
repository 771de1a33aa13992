"""Labels without a class and images of two kinds: refused before either engine begins."""

from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum

SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1 test_interval: 1'
DATA = """layer {{ name: "data" type: "{kind}" top: "data" top: "label"
  {kind_param} transform_param {{ {transform} }} }}
"""
LMDB = 'data_param { source: "lmdb" batch_size: 1 backend: LMDB }'
LIST = 'image_data_param { source: "list.txt" batch_size: 1 }'
SCORES = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 } }
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
"""
Prepare = Callable[..., Job]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Prepare a run of a net over data in ``tmp_path``."""

    def make(net: str, solver: str = "", *, kind: str = "Data", transform: str = "") -> Job:
        data = DATA.format(
            kind=kind, kind_param=LMDB if kind == "Data" else LIST, transform=transform
        )
        (tmp_path / "net.prototxt").write_text(data + net)
        (tmp_path / "solver.prototxt").write_text(SOLVER + solver)
        request = TrainRequest(tmp_path / "solver.prototxt", data=tmp_path)
        return prepare(request, RunFolder(tmp_path / f"run{len(list(tmp_path.glob('run*')))}"))

    return make


def write_lmdb(folder: Path, *data: Datum) -> None:
    with (
        lmdb.open(str(folder), map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, datum in enumerate(data):
            transaction.put(b"%d" % number, datum.SerializeToString())


def image(label: int = 0, channels: int = 1) -> Datum:
    size = channels * 4
    return Datum(channels=channels, height=2, width=2, data=bytes(size), label=label)


def encoded(channels: int) -> Datum:
    pixels = np.zeros((2, 2, channels), np.uint8)
    return Datum(encoded=True, data=cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_names_no_class_is_refused_with_layers_data_and_label(
    tmp_path: Path, prepared: Prepare, label: int
) -> None:
    write_lmdb(tmp_path / "lmdb", image(0), image(label), image(2))
    told = (
        rf"layer 'data' \(Data\): a label in .*/lmdb is {label}, but layer 'loss' "
        r"\(SoftmaxWithLoss\) compares it with 3 classes, 0 to 2"
    )
    with pytest.raises(DataError, match=told):
        prepared(SCORES + LOSS + "}")


def test_labels_that_are_ignored_or_not_compared_as_they_are_may_be_any(
    tmp_path: Path, prepared: Prepare
) -> None:
    write_lmdb(tmp_path / "lmdb", image(0), image(255))
    prepared(SCORES + LOSS + "loss_param { ignore_label: 255 } }")
    scaled = """layer { name: "p" type: "Power" bottom: "label" top: "label"
      power_param { scale: 0.001 } }"""
    prepared(scaled + SCORES + LOSS + "}")


def test_labels_of_a_phase_that_is_not_run_do_not_matter(tmp_path: Path, prepared: Prepare) -> None:
    write_lmdb(tmp_path / "lmdb", image(3))
    test_only = LOSS + "include { phase: TEST } }"
    prepared(SCORES + test_only)
    with pytest.raises(DataError, match="is 3, but layer 'loss'"):
        prepared(SCORES + test_only, " test_iter: 1")


def test_labels_of_a_list_are_seen_too(tmp_path: Path, prepared: Prepare) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png 1\na.png 7\n")
    with pytest.raises(DataError, match=r"\(ImageData\): a label in .*list\.txt is 7"):
        prepared(SCORES + LOSS + "}", kind="ImageData")


@pytest.mark.parametrize("make", [lambda count: image(channels=count), encoded])
def test_grey_and_colour_images_in_one_lmdb_are_refused(
    tmp_path: Path, prepared: Prepare, make: Callable[[int], Datum]
) -> None:
    write_lmdb(tmp_path / "lmdb", make(3), make(3), make(1))
    told = r"layer 'data' \(Data\): .* numbers of channels, 3 \(record 0\) and 1 \(record 2\)"
    with pytest.raises(DataError, match=told):
        prepared(SCORES + LOSS + "}")


def test_encoded_images_that_are_decoded_alike_may_be_mixed(
    tmp_path: Path, prepared: Prepare
) -> None:
    write_lmdb(tmp_path / "lmdb", encoded(3), encoded(1))
    prepared(SCORES + LOSS + "}", transform="force_color: true")
