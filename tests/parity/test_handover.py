"""A run begun by one engine goes on in the other, to the same end."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.lmdb_writer import Batch
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison.parity import initial_weights
from pycaffe_prune.engines.comparison.trajectory import relative_difference
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate
from tests.data_prep.lmdbs import write_lmdb

pytestmark = pytest.mark.real_caffe

# The statistics of BatchNorm, a frozen blob and shared weights lie in a snapshot too. No corners:
# roundings alone are between the engines. 50 images: after 15 batches of 16 the data stand inside.
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.0078125 mean_value: 128 }}
  data_param {{ source: "{source}" batch_size: 16 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 bias_term: false
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "normal" type: "BatchNorm" bottom: "conv" top: "normal" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "normal" top: "ip1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "act1" type: "TanH" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param {{ name: "w" }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3" param {{ name: "w" }}
  param {{ lr_mult: 0 }}
  inner_product_param {{ num_output: 12 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "ip4" type: "InnerProduct" bottom: "ip3" top: "ip4"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip4" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip4" bottom: "label" top: "loss" }}
"""
KINDS = {
    "SGD": "base_lr: 0.02 momentum: 0.9 iter_size: 2 clip_gradients: 1",
    "Nesterov": "base_lr: 0.02 momentum: 0.9",
    "AdaGrad": "base_lr: 0.01 delta: 1e-4",
    "RMSProp": "base_lr: 0.001 rms_decay: 0.9 delta: 1e-4",
    "AdaDelta": "base_lr: 1 momentum: 0.9 delta: 1e-4",
    "Adam": "base_lr: 0.001 momentum: 0.9 momentum2: 0.999 delta: 1e-4",
}
MASKED = {("ip1", 0): (12, 726), ("ip4", 0): (5, 12)}
HALF, WHOLE = 15, 30
TOLERANCE = 2e-5
"""Of each blob's largest value, after the 15 iterations that another engine has done."""


@dataclass(frozen=True)
class Engines:
    caffe: Engine
    torch: Engine


@pytest.fixture(scope="module")
def engines(caffe_python: Path) -> Iterator[Engines]:
    torch = TorchEngine()
    yield Engines(CaffeEngine(caffe_python), torch)
    torch.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    labels = np.arange(50) % 5
    noise = random.integers(0, 200, (50, 3, 13, 13), np.uint8)
    batch = Batch(noise + np.uint8(10) * labels.astype(np.uint8).reshape(-1, 1, 1, 1), labels)
    write_lmdb(folder / "images", [batch], count=50, shape=(3, 13, 13))
    return folder / "images"


@pytest.fixture
def request_for(engines: Engines, images: Path, tmp_path: Path):
    def make(kind: str, *, masked: bool = False) -> TrainRequest:
        net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
        net.write_text(NET.format(source=images))
        solver.write_text(
            f'net: "net.prototxt" type: "{kind}" {KINDS[kind]} weight_decay: 0.001 '
            f'lr_policy: "multistep" stepvalue: 8 stepvalue: 20 gamma: 0.5 max_iter: {WHOLE}'
        )
        mask = None
        if masked:
            random = np.random.default_rng(0)
            kept = {key: random.random(shape) < 0.3 for key, shape in MASKED.items()}
            mask = tmp_path / "kept.mask.h5"
            write_mask(mask, MaskFile(kept, "0" * 64, "random"))
        request = TrainRequest(
            solver=solver,
            net=net,
            mask=mask,
            data=images.parent,
            seed=1,
            snapshot=HALF,
            keep_snapshots=True,
        )
        return replace(request, weights=initial_weights(request, engines.caffe, tmp_path / "start"))

    return make


def ignore(event: object) -> None:
    """An observer that looks away."""


def state(folder: Path, iteration: int) -> Solverstate:
    return read_solverstate(folder / "snapshots" / f"snapshot_iter_{iteration}.solverstate")


def begun_copy(whole: Path, copy: Path) -> Path:
    """The run as it was after its first half."""
    shutil.copytree(whole, copy)
    RunFolder(copy).result.unlink()
    RunFolder(copy).final_weights.unlink()
    for late in (copy / "snapshots").glob(f"snapshot_iter_{WHOLE}.*"):
        late.unlink()
    return copy


def require_same_end(folder: Path, whole: Path) -> None:
    ours, theirs = (dict(read_caffemodel(f / "final.caffemodel").blobs()) for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    for key, blob in theirs.items():
        assert relative_difference(blob, ours[key]) <= TOLERANCE, key
    mine, other = state(folder, WHOLE), state(whole, WHOLE)
    assert (mine.iteration, mine.current_step) == (other.iteration, other.current_step) == (30, 2)
    for place, (blob, wanted) in enumerate(zip(mine.history, other.history, strict=True)):
        assert relative_difference(wanted, blob) <= TOLERANCE, place


def require_masked(model: Caffemodel, request: TrainRequest) -> None:
    random = np.random.default_rng(0)
    for (layer, index), shape in MASKED.items():
        kept = random.random(shape) < 0.3
        pruned = model.layer(layer).blobs[index][~kept]
        assert pruned.size
        assert not pruned.view(np.int32).any()
        assert model.layer(layer).blobs[index][kept].all()


@pytest.mark.parametrize(
    ("kind", "masked"), [*((kind, True) for kind in KINDS), ("SGD", False), ("Adam", False)]
)
def test_a_run_handed_over_ends_where_caffe_alone_ends(
    engines: Engines, request_for, tmp_path: Path, kind: str, masked: bool
) -> None:
    request = request_for(kind, masked=masked)
    whole = tmp_path / "whole"
    train(request, whole, engines.caffe, ignore)

    # Caffe's first half, our second.
    handed = begun_copy(whole, tmp_path / "to-torch")
    resumed: list[int] = []
    result = train(
        request,
        handed,
        engines.torch,
        lambda event: resumed.append(event.iteration) if event.event == "resumed" else None,
    )
    assert (resumed, result.engine, result.iterations) == ([HALF], "torch", WHOLE)
    require_same_end(handed, whole)

    # Our first half, Caffe's second.
    back = tmp_path / "to-caffe"
    train(replace(request, max_iter=HALF), back, engines.torch, ignore)
    assert state(back, HALF).current_step == state(whole, HALF).current_step == 1
    resumed.clear()
    result = train(
        request,
        back,
        engines.caffe,
        lambda event: resumed.append(event.iteration) if event.event == "resumed" else None,
    )
    assert (resumed, result.engine, result.iterations) == ([HALF], "caffe", WHOLE)
    require_same_end(back, whole)

    if masked:
        for folder in (handed, back):
            require_masked(read_caffemodel(folder / "final.caffemodel"), request)


@pytest.mark.parametrize("kind", KINDS)
def test_caffe_restores_every_bit_that_torch_has_left(
    engines: Engines, request_for, caffe_solver, tmp_path: Path, kind: str
) -> None:
    request = request_for(kind)
    run = tmp_path / "run"
    train(replace(request, max_iter=HALF), run, engines.torch, ignore)
    solver = run / "snapshots" / "solver.prototxt"
    text = (run / "solver.prototxt").read_text()
    assert 'snapshot_prefix: "snapshot"' in text
    solver.write_text(text.replace('snapshot_prefix: "snapshot"', 'snapshot_prefix: "theirs"'))
    held = caffe_solver(solver, "train", state=f"snapshot_iter_{HALF}.solverstate", steps=0)
    ours = state(run, HALF)
    theirs = read_solverstate(run / "snapshots" / f"theirs_iter_{HALF}.solverstate")
    assert (theirs.iteration, theirs.current_step) == (ours.iteration, ours.current_step) == (15, 1)
    assert [blob.tobytes() for blob in theirs.history] == [blob.tobytes() for blob in ours.history]
    assert any(blob.any() for blob in ours.history)
    blobs = [blob for _, blob in read_caffemodel(run / "final.caffemodel").blobs()]
    assert [held[f"start:{index}"].tobytes() for index in range(len(blobs))] == [
        blob.tobytes() for blob in blobs
    ]
