"""The laws of equal weights that stay equal while a net trains, in both engines."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from pydantic import ValidationError

from pycaffe_prune.engines.base import Engine, TrainResult
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import remove_snapshot
from pycaffe_prune.engines.caffe.caffe_worker.tied import Groups
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.masking import DynamicSurgery
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.pack import pack_key
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.tying import Gradient, Tying
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_net, read_solver
from tests.engines.conftest import NET, SOLVER

END, MIDDLE = 40, 20
KEYS = (("ip1", 0), ("ip2", 0))
TYINGS = {"plain": Tying(blobs=KEYS), "signed": Tying(blobs=KEYS, signed=True)}
SHAPES = {("ip1", 0): (20, 784), ("ip1", 1): (20,), ("ip2", 0): (10, 20), ("ip2", 1): (10,)}
Run = Callable[..., RunFolder]


def write_model(path: Path, **blobs: tuple[np.ndarray, ...]) -> None:
    layers = (
        Layer(LayerParameter(name=name, type="InnerProduct"), blobs=arrays)
        for name, arrays in blobs.items()
    )
    write_caffemodel(path, Caffemodel(tuple(layers)))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with a small net, its solver, and weights of a few values, most of them zero."""
    folder = tmp_path_factory.mktemp("small")
    settings = "base_lr: 0.02 momentum: 0.9 iter_size: 2"
    (folder / "net.prototxt").write_text(
        NET.format(batch=16, transform="", test_transform="", dropout="")
    )
    (folder / "solver.prototxt").write_text(SOLVER.replace("200", str(END)) + settings)
    random = np.random.default_rng(5)
    values = np.array([-0.2, -0.1, -0.05, 0.05, 0.1, 0.2], np.float32)
    blobs = {key: random.choice(values, shape) for key, shape in SHAPES.items()}
    blobs["ip1", 0][random.random(SHAPES["ip1", 0]) < 0.8] = 0
    blobs["ip1", 0][0, :9] = -0.0
    blobs["ip2", 0][random.random(SHAPES["ip2", 0]) < 0.4] = 0
    blobs["ip1", 1][:] = 0
    write_model(
        folder / "start.caffemodel",
        ip1=(blobs["ip1", 0], blobs["ip1", 1]),
        ip2=(blobs["ip2", 0], blobs["ip2", 1]),
    )
    return folder


@pytest.fixture(scope="module")
def run(small, digits) -> Run:
    """Train the small net in a folder."""

    def run(engine: Engine, folder: Path, **fields) -> RunFolder:
        told = {"weights": small / "start.caffemodel", "test_interval": 0, "snapshot": 0} | fields
        request = TrainRequest(solver=small / "solver.prototxt", data=digits, seed=3, **told)
        train(request, folder, engine, lambda _: None)
        return RunFolder(folder)

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory, request) -> Callable[[str], RunFolder]:
    """Return a run of an engine in one go, its snapshots kept; each made once."""
    made: dict[str, RunFolder] = {}

    def whole(name: str) -> RunFolder:
        if name not in made:
            engine = request.getfixturevalue(f"{name}_engine")
            kept = {"keep_snapshots": True, "checkpoints": (1, MIDDLE)}
            folder = tmp_path_factory.mktemp("whole") / "run"
            made[name] = run(engine, folder, tying=TYINGS["plain"], **kept)
        return made[name]

    return whole


def killed_halfway(made: RunFolder, folder: Path) -> RunFolder:
    """Copy a run as it was after its snapshot in the middle."""
    shutil.copytree(made.path, folder)
    left = RunFolder(folder)
    for path in (left.result, left.final_weights):
        path.unlink()
    remove_snapshot(str(left.snapshots), END)
    return left


def require_tied(start: Caffemodel, model: Caffemodel, *, signed: bool = False) -> None:
    """Each value of a blob has become one value, and zero has stayed zero."""
    for name, index in KEYS:
        before, after = start.layer(name).blobs[index], model.layer(name).blobs[index]
        assert (after[before == 0].view(np.int32) == 0).all()
        if signed:
            before, after = np.abs(before), after * np.sign(before)
        pairs = set(zip(before.reshape(-1).tolist(), after.reshape(-1).tolist(), strict=True))
        assert len(pairs) == len(np.unique(before))
        assert any(new != old for old, new in pairs)


def test_equal_weights_stay_equal_and_pruned_ones_zero_in_all_that_is_left(engine, whole, small):
    made = whole(engine.name)
    start = read_caffemodel(small / "start.caffemodel")

    for path in (*sorted(made.snapshots.glob("*.caffemodel")), made.final_weights):
        require_tied(start, read_caffemodel(path))
    result = TrainResult.model_validate_json(made.result.read_bytes())
    assert result.revived == 0
    assert result.final_test.loss < result.first_test.loss
    biases = [read_caffemodel(made.final_weights).layer("ip1").blobs[1]]
    assert len(np.unique(biases)) > 10  # what is not tied trains as ever


def test_training_in_two_parts_is_training_in_one_bit_for_bit(engine, whole, run, tmp_path):
    one = whole(engine.name)
    two = killed_halfway(one, tmp_path / "run")
    run(engine, tmp_path / "run", tying=TYINGS["plain"])

    assert two.final_weights.read_bytes() == one.final_weights.read_bytes()


@pytest.mark.real_caffe
def test_engines_agree_and_one_goes_on_where_the_other_was_stopped(
    whole, run, caffe_engine, torch_engine, small, tmp_path
):
    caffe, torch = whole("caffe"), whole("torch")
    killed_halfway(torch, tmp_path / "on")
    on = run(caffe_engine, tmp_path / "on", tying=TYINGS["plain"])
    require_tied(read_caffemodel(small / "start.caffemodel"), read_caffemodel(on.final_weights))

    theirs = read_caffemodel(caffe.final_weights)
    for other in (torch, on):
        ours = read_caffemodel(other.final_weights)
        for (name, index), blob in theirs.blobs():
            assert np.abs(ours.layer(name).blobs[index] - blob).max() < 1e-5


def test_signs_make_one_group_of_a_magnitude_and_masks_take_weights_out(
    engine, run, small, tmp_path
):
    start = read_caffemodel(small / "start.caffemodel")
    mask = np.arange(15680).reshape(20, 784) % 2 == 0
    path = tmp_path / "half.mask.h5"
    write_mask(path, MaskFile({("ip1", 0): mask}, "0" * 64, "half"))
    made = run(engine, tmp_path / "run", tying=TYINGS["signed"], mask=path, max_iter=8)

    masked = start.with_blobs({("ip1", 0): start.layer("ip1").blobs[0] * mask})
    require_tied(masked, read_caffemodel(made.final_weights), signed=True)


HAND_MADE = """
layer { name: "data" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 1 dim: 4 } shape { dim: 1 dim: 1 }
    data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 0.5 } } }
layer { name: "still" type: "InnerProduct" bottom: "x" top: "s" param { lr_mult: 0 }
  inner_product_param { num_output: 4 bias_term: false } }
layer { name: "ip" type: "InnerProduct" bottom: "s" top: "a" param { name: "w" lr_mult: 2 }
  inner_product_param { num_output: 1 bias_term: false } }
layer { name: "twin" type: "InnerProduct" bottom: "s" top: "b" param { name: "w" }
  inner_product_param { num_output: 1 bias_term: false } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "y" }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SGD = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 3 weight_decay: 0.1\n'


def train_by_hand(
    engine: Engine, folder: Path, settings: str, gradient: Gradient = "sum"
) -> np.ndarray:
    """Return the weights of the shared layer after three iterations from 2, 2, 3, 0."""
    (folder / "net.prototxt").write_text(HAND_MADE)
    (folder / "solver.prototxt").write_text(SGD + settings)
    shared = np.array([[2, 2, 3, 0]], np.float32)
    still = np.full((4, 4), 0.25, np.float32)
    write_model(folder / "start.caffemodel", still=(still,), ip=(shared,), twin=(shared,))
    request = TrainRequest(
        solver=folder / "solver.prototxt",
        weights=folder / "start.caffemodel",
        tying=Tying(blobs=(("still", 0), ("twin", 0)), gradient=gradient),
    )
    train(request, folder / "run", engine, lambda _: None)
    model = read_caffemodel(RunFolder(folder / "run").final_weights)
    assert (model.layer("still").blobs[0] == 0.25).all()
    assert (model.layer("ip").blobs[0] == model.layer("twin").blobs[0]).all()
    return model.layer("ip").blobs[0].reshape(-1)


def gradients(values: np.ndarray) -> np.ndarray:
    """Of the two shared values: the sum over their weights, in both layers that share them."""
    rest = 2 * (2 * values[0] + values[1]) - 0.5
    return 2 * rest * np.array([2.0, 1.0])


def test_a_value_is_decayed_clipped_and_moved_once_by_hand(engine, tmp_path):
    left = train_by_hand(engine, tmp_path, "momentum: 0.5 clip_gradients: 90 iter_size: 2")

    values, speed = np.array([2.0, 3.0]), np.zeros(2)
    for step in range(3):
        sums = 2 * gradients(values)
        norm = np.linalg.norm(sums)
        assert (norm > 90) == (step == 0)  # the norm counts each value once
        sums *= min(1, 90 / norm)
        speed = 0.5 * speed + 2 * 0.01 * (sums / 2 + 0.1 * values)
        values = values - speed
    assert left == pytest.approx([values[0], values[0], values[1], 0], rel=1e-5)


def test_adam_sees_a_value_as_one_weight_by_hand(engine, tmp_path):
    left = train_by_hand(engine, tmp_path, 'type: "Adam" momentum: 0.9 momentum2: 0.99 delta: 1e-8')

    values, mean, square = np.array([2.0, 3.0]), np.zeros(2), np.zeros(2)
    for step in (1, 2, 3):
        gradient = gradients(values) + 0.1 * values
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        rate = 2 * 0.01 * math.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        values = values - rate * mean / (np.sqrt(square) + 1e-8)
    assert left == pytest.approx([values[0], values[0], values[1], 0], rel=1e-5)


def test_by_the_mean_a_group_moves_as_far_as_a_single_weight_by_hand(engine, tmp_path):
    left = train_by_hand(engine, tmp_path, "momentum: 0.5", "mean")

    values, speed = np.array([2.0, 3.0]), np.zeros(2)
    for _ in range(3):
        speed = 0.5 * speed + 2 * 0.01 * (gradients(values) / [2, 1] + 0.1 * values)
        values = values - speed
    assert left == pytest.approx([values[0], values[0], values[1], 0], rel=1e-5)


def test_a_damaged_snapshot_is_refused_and_a_blob_of_zeros_stays(
    run, whole, torch_engine, tmp_path
):
    made = killed_halfway(whole("torch"), tmp_path / "two")
    path = made.snapshots / f"snapshot_iter_{MIDDLE}.caffemodel"
    (made.snapshots / f"snapshot_iter_{MIDDLE}.sha256").unlink()
    model = read_caffemodel(path)
    blob = model.layer("ip2").blobs[0].copy()
    blob[blob != 0] += np.arange(np.count_nonzero(blob), dtype=np.float32)
    write_caffemodel(path, model.with_blobs({("ip2", 0): blob}))
    with pytest.raises(PruneError, match="weights have not their group's value"):
        run(torch_engine, tmp_path / "two", tying=TYINGS["plain"])

    zeros = model.with_blobs({key: np.zeros(SHAPES[key], np.float32) for key in KEYS})
    write_caffemodel(tmp_path / "zeros.caffemodel", zeros)
    left = run(
        torch_engine,
        tmp_path / "three",
        tying=TYINGS["plain"],
        weights=tmp_path / "zeros.caffemodel",
        max_iter=2,
    )
    for name, index in KEYS:
        assert not read_caffemodel(left.final_weights).layer(name).blobs[index].any()


def test_what_is_no_number_shares_no_value(torch_engine, run, small, tmp_path):
    model = read_caffemodel(small / "start.caffemodel")
    blob = model.layer("ip2").blobs[0].copy()
    blob[0, 0] = np.nan
    write_caffemodel(tmp_path / "nan.caffemodel", model.with_blobs({("ip2", 0): blob}))
    told = {"tying": TYINGS["plain"], "weights": tmp_path / "nan.caffemodel"}
    with pytest.raises(PruneError, match="layer 'ip2', blob 0: a weight is NaN or infinite"):
        run(torch_engine, tmp_path / "run", **told)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"tying": Tying(blobs=(("ip9", 0),))},
            "names layer 'ip9', which the net does not have",
        ),
        ({"tying": Tying(blobs=(("ip1", 2),))}, r"blob 2, which the layer \(InnerProduct\) does"),
        ({"weights": None}, "layer 'ip1' are to stay equal, and the run begins with no weights"),
        (
            {"masking": DynamicSurgery.of({"ip1": 1}, stop=5)},
            "a masking and weights that are tied do not",
        ),
        ({"weights": None, "restore": True}, "cannot go on from another's state"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    small, digits, tmp_path, whole, fields, sentence, torch_engine
):
    if fields.get("restore"):
        state = whole("torch").snapshots / f"snapshot_iter_{MIDDLE}.solverstate"
        fields = fields | {"restore": state}
    told = {"weights": small / "start.caffemodel", "tying": TYINGS["plain"]} | fields
    request = TrainRequest(solver=small / "solver.prototxt", data=digits, **told)
    with pytest.raises(PruneError, match=sentence):
        prepare(request, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_sharers_of_one_blob_are_tied_by_one_name(tmp_path, small, digits):
    net = read_net(small / "net.prototxt")
    twin = net.layer.add()
    twin.CopyFrom(next(layer for layer in net.layer if layer.name == "ip2"))
    twin.name, twin.top[0] = "twin", "twin"
    for layer in net.layer:
        if layer.name in ("ip2", "twin"):
            layer.param.add(name="w")
    (tmp_path / "net.prototxt").write_text(text_format.MessageToString(net))
    request = TrainRequest(
        solver=small / "solver.prototxt",
        net=tmp_path / "net.prototxt",
        weights=small / "start.caffemodel",
        data=digits,
        tying=Tying(blobs=(("ip2", 0), ("twin", 0))),
    )
    with pytest.raises(PruneError, match="'ip2' and 'twin' share one blob"):
        prepare(request, RunFolder(tmp_path / "run"))


def test_a_run_whose_weights_are_tied_otherwise_is_another_run(tmp_path, small, digits):
    folder = RunFolder(tmp_path / "run")
    request = TrainRequest(
        solver=small / "solver.prototxt",
        data=digits,
        weights=small / "start.caffemodel",
        tying=TYINGS["plain"],
    )
    assert prepare(request, folder).tying == TYINGS["plain"]
    prepare(request, folder)
    other = TrainRequest(**vars(request) | {"tying": None})
    with pytest.raises(PruneError, match="weights tied in ip1/0, ip2/0 -> no layer"):
        prepare(other, folder)
    solver = Solver(read_solver(folder.solver), read_net(folder.net))
    assert pack_key(solver)
    solver.tie(TYINGS["plain"], {})
    assert pack_key(solver) is None
    solver.close()


def test_a_blob_named_twice_is_refused():
    with pytest.raises(ValidationError, match="named twice"):
        Tying(blobs=(("ip1", 0), ("ip1", 0)))


def test_groups_are_led_by_their_first_weights():
    values = np.array([[0, 3, -2, 3], [2, -2, 0, -3]], np.float32)
    plain, signed = Groups(values, False), Groups(values, True)

    assert plain.firsts.tolist() == [7, 2, 4, 1]
    assert plain.places.tolist() == [7, 2, 5, 4, 1, 3]
    assert plain.codes.tolist() == [0, 1, 1, 2, 3, 3]
    assert signed.firsts.tolist() == [2, 1]
    assert signed.places.tolist() == [2, 4, 5, 1, 3, 7]
    assert signed.signs.tolist() == [1, -1, 1, 1, 1, -1]
