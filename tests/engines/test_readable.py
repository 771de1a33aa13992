"""What nets and solvers may have read: below --data and their own folder, links followed."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare, prepare_evaluation
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError, PruneError

NET = Path("/mine/net.prototxt")
LAYERS = """
layer {{ name: "d" type: "{kind}" top: "data" top: "label" {message} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 10 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  {loss} }}
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 '


def test_a_file_is_where_its_links_lead(tmp_path: Path) -> None:
    for name in ("data", "net", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    readable = Readable.of(tmp_path / "net/net.prototxt", tmp_path / "data", trust=False)
    (tmp_path / "net/inner").symlink_to(tmp_path / "data")
    (tmp_path / "net/outer").symlink_to(tmp_path / "out")
    (tmp_path / "net/link").symlink_to(tmp_path / "out/file")
    may = ("data/file", "net/file", "data/none", "net/inner/file", "net", "net/x/../file")
    may_not = ("out/file", "net/outer/file", "net/link", "net/../out/file", "net/..", "database")
    for name in may:
        assert readable.allows(tmp_path / name)
        readable.require([tmp_path / "net/file", tmp_path / name])
    for name in may_not:
        assert not readable.allows(tmp_path / name)
        with pytest.raises(FormatError, match="--data, or give --trust"):
            readable.require([tmp_path / "net/file", tmp_path / name])
    Readable.of(tmp_path / "net/net.prototxt", None, trust=True).require([Path("/etc/passwd")])


def test_without_data_the_working_directory_counts_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Readable.of(NET, None, trust=False).allows(tmp_path / "file")
    assert not Readable.of(NET, tmp_path / "data", trust=False).allows(tmp_path / "file")


@pytest.fixture
def secret(tmp_path: Path, digits: Path) -> Path:
    """A folder of somebody's, with files of every kind that a net can name."""
    folder = tmp_path / "secret"
    shutil.copytree(digits, folder)
    cv2.imwrite(str(folder / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with h5py.File(folder / "a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)
    (folder / "list.txt").write_text("a.png 0\n")
    (folder / "w.caffemodel").write_bytes(b"")
    return folder


NAMED = {
    "an LMDB": (
        "Data",
        'data_param { source: "SECRET/mnist_train_lmdb" batch_size: 2 backend: LMDB }',
    ),
    "a mean image": (
        "DummyData",
        'dummy_data_param { shape { dim: 2 } } transform_param { mean_file: "SECRET/a.png" }',
    ),
    "a list": ("ImageData", 'image_data_param { source: "SECRET/list.txt" }'),
    "an image": ("ImageData", 'image_data_param { source: "images.txt" batch_size: 1 }'),
    "a root": ("ImageData", 'image_data_param { source: "names.txt" root_folder: "SECRET/" }'),
    "a way out": (
        "ImageData",
        'image_data_param { source: "names.txt" root_folder: "../secret/" }',
    ),
    "a window": ("WindowData", 'window_data_param { source: "windows.txt" batch_size: 1 }'),
    "rows": ("HDF5Data", 'hdf5_data_param { source: "hdf5.txt" batch_size: 1 }'),
    "a link": ("ImageData", 'image_data_param { source: "linked.txt" batch_size: 1 }'),
    "a linked LMDB": (
        "Data",
        'data_param { source: "linked_lmdb" batch_size: 2 backend: LMDB }',
    ),
}


@pytest.fixture
def ask(tmp_path: Path, secret: Path) -> TrainRequest:
    """A stranger's folder, whose lists and links lead into ``secret``."""
    folder = tmp_path / "strangers"
    (folder / "linked_lmdb").mkdir(parents=True)
    (folder / "images.txt").write_text(f"{secret}/a.png 0\n")
    (folder / "names.txt").write_text("a.png 0\n")
    (folder / "windows.txt").write_text(f"# 0\n{secret}/a.png\n3\n4\n4\n1\n1 0.9 0 0 3 3\n")
    (folder / "hdf5.txt").write_text(f"{secret}/a.h5\n")
    (folder / "linked.txt").write_text("link.png 0\n")
    (folder / "link.png").symlink_to(secret / "a.png")
    (folder / "linked_lmdb" / "data.mdb").symlink_to(secret / "mnist_train_lmdb" / "data.mdb")
    (folder / "solver.prototxt").write_text(SOLVER)
    return TrainRequest(solver=folder / "solver.prototxt", data=folder)


@pytest.mark.parametrize("what", NAMED)
def test_a_stranger_s_net_has_nothing_read_elsewhere(
    what: str, ask: TrainRequest, secret: Path, tmp_path: Path
) -> None:
    kind, message = NAMED[what]
    net, before = ask.solver.parent / "net.prototxt", sorted(tmp_path.rglob("*"))
    net.write_text(
        LAYERS.format(kind=kind, message=message.replace("SECRET", str(secret)), loss="")
    )
    with pytest.raises(FormatError, match=rf"^{net}: names the file .*{secret}.*; .*--trust"):
        prepare(ask, RunFolder(tmp_path / "run"))
    with pytest.raises(FormatError, match="--trust"):
        prepare_evaluation(net, [], ask.data, RunFolder(tmp_path / "run"))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, net])
    for request in (replace(ask, trust=True), replace(ask, own=(secret,))):
        told = ""
        try:
            prepare(request, RunFolder(tmp_path / f"run-{request.trust}"))
        except PruneError as error:  # whatever else is wrong with it: it was read
            told = str(error)
        assert "--trust" not in told


def test_a_solver_s_weights_and_matrices_are_read_below_its_folder_alone(
    ask: TrainRequest, secret: Path, tmp_path: Path
) -> None:
    net = ask.solver.parent / "net.prototxt"
    data = "dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }"
    net.write_text(LAYERS.format(kind="DummyData", message=data, loss=""))
    ask.solver.write_text(SOLVER + f'weights: "{secret}/w.caffemodel"')
    with pytest.raises(FormatError, match=f"^{ask.solver}: names the file {secret}/w.caffemodel"):
        prepare(ask, RunFolder(tmp_path / "run"))
    ask.solver.write_text(SOLVER)
    text = LAYERS.format(
        kind="DummyData", message=data, loss=f'infogain_loss_param {{ source: "{secret}/a.png" }}'
    )
    net.write_text(text.replace("SoftmaxWithLoss", "InfogainLoss"))
    with pytest.raises(FormatError, match=f"^{net}: names the file {secret}/a.png"):
        prepare(ask, RunFolder(tmp_path / "run"))
