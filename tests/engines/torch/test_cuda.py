"""The torch engine on a GPU is the torch engine on a CPU. Runs only where there is a GPU.

What a machine without one can tell of the same code is in test_recorded.py.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.data import lmdb_source
from pycaffe_prune.engines.torch.data.memory_source import DummySource
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.engines.torch.data.resident import ResidentSource
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.engines.torch.layers.random import Dropout
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pack import Pack
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.worker import prepare_process
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.net.graph import NetState
from tests.engines.torch.layer_case import Case
from tests.engines.torch.layer_cases import CASES
from tests.engines.torch.training_nets import make_solver, small_net
from tests.engines.torch.weighted_cases import CASES as WEIGHTED_CASES
from tests.parity.comparison import build_layer

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: `caffe-prune doctor` tells why"
)
GPU = "cuda:0"


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """No TF32, which PyTorch lets convolutions have."""
    before = torch.backends.cudnn.allow_tf32
    prepare_process()
    yield
    torch.backends.cudnn.allow_tf32 = before


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = expected.abs().max()
    assert scale > 0
    apart = (found.cpu() - expected.cpu()).abs().max() / scale.cpu()
    assert apart <= tolerance


def assert_same(solver: Solver, other: Solver, tolerance: float = 1e-4) -> None:
    assert_close(solver.net.parameters.data, other.net.parameters.data, tolerance)
    for ours, theirs in zip(solver.update.history, other.update.history, strict=True):
        assert_close(ours, theirs, tolerance)
    loss = other.net.blobs["loss"].data
    assert solver.net.blobs["loss"].data == pytest.approx(loss, rel=1e-3)


def masks(solver: Solver, seed: int = 0) -> dict[tuple[str, int], np.ndarray]:
    shape = solver.net.params["ip1"][0].shape
    return {("ip1", 0): np.random.default_rng(seed).random(shape) < 0.3}


def is_recorded(solver: Solver) -> bool:
    return solver.stepping._compute._graph is not None and solver.stepping._apply._graph is not None


ALL_CASES = {**CASES, **WEIGHTED_CASES}


def passes(case: Case, device: str) -> list[Tensor]:
    """Tops, gradients of bottoms and of parameters, and parameters of one layer, on the CPU."""
    layer = build_layer(case.param, [bottom.shape for bottom in case.bottoms])
    arrays = case.bottoms, case.params, case.top_diffs()
    bottoms, params, diffs = (
        [None if array is None else torch.from_numpy(array.copy()).to(device) for array in part]
        for part in arrays
    )
    param_diffs = [torch.zeros_like(param) for param in params]
    with torch.no_grad():
        tops, saved = layer.forward_saving(bottoms, params)
        found = layer.backward(saved, diffs, case.propagate, param_diffs)
    made = [*tops, *found, *param_diffs, *params]
    return [one.cpu() for one in made if one is not None]


@pytest.mark.parametrize("kind", sorted(ALL_CASES.keys() - {"Dropout"}))
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_layer_computes_as_on_the_cpu(kind: str, data: st.DataObject) -> None:
    case = data.draw(ALL_CASES[kind]())
    for found, expected in zip(passes(case, GPU), passes(case, "cpu"), strict=True):
        scale = max(expected.abs().nan_to_num(0, 0, 0).max().item(), 1) if expected.numel() else 1
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_training_is_that_of_the_cpu(digits: Path, masked: bool, normalized: bool) -> None:
    net = small_net(digits, normalized=normalized)
    solver, other = (make_solver(net, device=device) for device in (GPU, "cpu"))
    for one in (solver, other):
        if masked:
            one.mask(masks(one))
        one.step(50)
    assert is_recorded(solver)
    if masked:
        assert solver.masks.revived() == 0
    assert_same(solver, other)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_an_update_is_that_of_the_cpu(digits: Path, kind: str) -> None:
    momentum = {"AdaGrad": 0, "RMSProp": 0, "AdaDelta": 0.95}.get(kind, 0.9)
    told = f'type: "{kind}" momentum: {momentum} lr_policy: "fixed" base_lr: 0.001 delta: 1e-4'
    told += " clip_gradients: 1 iter_size: 2"
    solver, other = (make_solver(small_net(digits), told, device=d) for d in (GPU, "cpu"))
    for one in (solver, other):
        one.step(20)
    assert is_recorded(solver)
    assert_same(solver, other)


def test_a_recorded_iteration_is_the_one_that_is_not(digits: Path) -> None:
    solver, eager = (make_solver(small_net(digits), device=GPU) for _ in range(2))
    eager.stepping._records = False
    eager.stepping.renew()
    for one in (solver, eager):
        one.step(25)
        one.net.forward()
        one.step(5)
        one.mask(masks(one))
        one.step(20)
    assert is_recorded(solver)
    assert solver.masks.revived() == 0
    assert_same(solver, eager, 1e-5)


@pytest.mark.parametrize("held", [True, False], ids=["resident", "streamed"])
def test_random_crops_and_mirrors_are_those_of_the_cpu(
    digits: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    if not held:
        monkeypatch.setattr(lmdb_source, "load_image_set", lambda *_: None)
    net = small_net(digits, transform="mirror: true crop_size: 24 mean_value: 30")
    solver, other = (make_solver(net, device=device) for device in (GPU, "cpu"))
    (source,) = solver.net._sources.values()
    assert isinstance(source, ResidentSource if held else Prefetch)
    if held:
        assert source._held.images.device.type == "cuda"
    for one in (solver, other):
        one.step(50)
    assert is_recorded(solver)
    assert_same(solver, other)
    solver.close()


def test_dropout_keeps_as_many_as_it_is_told_and_repeats_itself() -> None:
    param = LayerParameter(name="drop", type="Dropout", bottom=["x"], top=["y"])
    param.dropout_param.dropout_ratio = 0.3
    shape = (1000, 1000)
    layer, bottom = Dropout(LayerSetup(param, (shape,), (shape,), TRAIN)), torch.ones(shape)
    tops = []
    for key in (1, 1, 2):
        layer.reseed(key)
        ((top,), _) = layer.forward_saving([bottom.to(GPU)], [])
        tops.append(top)
    assert torch.equal(tops[0], tops[1])
    assert not torch.equal(tops[0], tops[2])
    kept = (tops[0] > 0).double().mean().item()
    assert kept == pytest.approx(0.7, abs=5 * (0.21 / bottom.numel()) ** 0.5)
    assert tops[0].unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_a_net_with_dropout_is_not_recorded_and_goes_on_after_a_snapshot(
    digits: Path, tmp_path: Path
) -> None:
    net = small_net(digits, dropout=True)
    whole, part, rest = (make_solver(net, device=GPU) for _ in range(3))
    whole.step(30)
    part.step(12)
    part.snapshot(tmp_path / "part")
    rest.restore(tmp_path / "part.solverstate")
    rest.step(18)
    assert_same(rest, whole, 1e-5)


@pytest.mark.parametrize("runs", [1, 5])
def test_a_packed_run_is_the_run_alone(digits: Path, runs: int) -> None:
    net = small_net(digits)
    packed = [make_solver(net, seed=seed, device=GPU) for seed in range(runs)]
    alone = [make_solver(net, seed=seed, device=GPU) for seed in range(runs)]
    for one in packed + alone:
        one.mask(masks(one, one.param.random_seed))
    pack = Pack(packed)
    for iterations in (20, 10):
        pack.step(iterations)
    assert pack._stepping._compute._graph is not None
    for solver, single in zip(packed, alone, strict=True):
        single.step(30)
        assert solver.masks.revived() == 0
        assert_same(solver, single)


@pytest.fixture
def gpu_engine() -> Iterator[TorchEngine]:
    engine = TorchEngine(device=GPU)
    yield engine
    engine.close()


def ignore(event: object) -> None:
    """An observer that looks away."""


def test_the_engine_trains_tests_and_computes(
    gpu_engine: TorchEngine, torch_engine: TorchEngine, request_for, digits: Path, tmp_path: Path
) -> None:
    places = [(gpu_engine, GPU, tmp_path / "gpu"), (torch_engine, "cpu", tmp_path / "cpu")]
    ran = [train(request_for(device=d, max_iter=60), out, e, ignore) for e, d, out in places]
    assert "cuda" in ran[0].versions
    assert abs(ran[0].final_test.correct - ran[1].final_test.correct) <= 1
    weights = tmp_path / "cpu" / "final.caffemodel"
    for one, other in zip(
        read_caffemodel(tmp_path / "gpu" / "final.caffemodel").blobs(),
        read_caffemodel(weights).blobs(),
        strict=True,
    ):
        assert_close(*(torch.from_numpy(np.array(blob)) for _, blob in (one, other)))
    scores = []
    for engine, device, out in places:
        folder = RunFolder(out / "again")
        folder.path.mkdir()
        net = out / "net.prototxt"
        job = prepare_evaluation(net, [weights], digits, folder, device=device)
        scores += engine.evaluate(folder, job)
    assert abs(scores[0].correct - scores[1].correct) <= 1
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 784 } } }
        layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 20 } }
    """)
    images = np.random.default_rng(1).random((5, 784), np.float32)
    found = [engine.forward(deploy, weights, {"x": images}, ["y"])[0] for engine, _, _ in places]
    assert_close(*map(torch.from_numpy, found), tolerance=1e-5)


def test_after_a_label_that_is_none_the_next_run_has_a_new_process(
    gpu_engine: TorchEngine, request_for, make_solver, tmp_path: Path
) -> None:
    solver = make_solver()
    net = solver.with_name("net.prototxt")
    right = net.read_text()
    net.write_text(right.replace("num_output: 10", "num_output: 4"))
    with pytest.raises(PruneError):
        train(request_for(solver, device=GPU), tmp_path / "wrong", gpu_engine, ignore)
    net.write_text(right)
    done = train(request_for(solver, device=GPU, max_iter=20), tmp_path / "run", gpu_engine, ignore)
    assert done.iterations == 20


def test_a_test_net_is_on_the_device_and_follows_the_training_net(digits: Path) -> None:
    solver = make_solver(small_net(digits), device=GPU)
    test = Net(solver.net.definition, NetState(TRAIN), torch.device(GPU), seed=5)
    test.share_with(solver.net)
    solver.step(20)
    loss = test.forward()["loss"]
    other = make_solver(small_net(digits))
    other.step(20)
    other.net.seek(0)
    assert loss == pytest.approx(other.net.forward()["loss"], rel=1e-3)


def test_batches_are_not_made_on_a_stream_that_a_recording_may_get() -> None:
    pool = {torch.cuda.Stream(GPU).cuda_stream for _ in range(64)}
    param = LayerParameter(name="data", type="DummyData", top=["data"])
    param.dummy_data_param.shape.add(dim=[2])
    device = torch.device(GPU)
    prefetch = Prefetch(DummySource(param, device, 1), device, 1)
    assert prefetch._stream is not None
    assert prefetch._stream.cuda_stream not in pool
    prefetch.close()
