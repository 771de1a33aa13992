"""The laws of masks that change while a net trains, and of few levels, in both engines."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.engines.base import Engine, Event, TrainResult
from pycaffe_prune.engines.caffe.caffe_worker.mask_state import read_mask_state
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import remove_snapshot
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.masking import DynamicSurgery, FewBits, GradualMagnitude, Masking
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.pruning.connections import apply_masks
from pycaffe_prune.pruning.few_bits import level_rule, on_few_levels
from pycaffe_prune.pruning.gradual import CubicSchedule
from tests.engines.conftest import NET, SOLVER

END, MIDDLE = 60, 30
MASKINGS: dict[str, Masking] = {
    "surgery": DynamicSurgery.of({"ip1": 0.5, "ip2": 0.3}, stop=50, gamma=0.02),
    "gradual": GradualMagnitude.of(
        {"ip1": 0.9, "ip2": 0.6}, begin=4, every=5, changes=7, initial=0.1
    ),
    "few bits": FewBits.of({"ip1": level_rule("2bits"), "ip2": level_rule("ternary")}),
}
all_kinds = pytest.mark.parametrize("kind", sorted(MASKINGS))
kinds = pytest.mark.parametrize("kind", ["gradual", "surgery"])
SHAPES = {("ip1", 0): (20, 784), ("ip1", 1): (20,), ("ip2", 0): (10, 20), ("ip2", 1): (10,)}
MOVING = [("ip1", 0), ("ip2", 0)]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with a solver of the small net, which has all that a resume must bring back."""
    folder = tmp_path_factory.mktemp("small")
    settings = "base_lr: 0.05 momentum: 0.9 iter_size: 2"
    (folder / "net.prototxt").write_text(
        NET.format(batch=16, transform="", test_transform="", dropout="")
    )
    (folder / "solver.prototxt").write_text(SOLVER.replace("200", str(END)) + settings)
    random = np.random.default_rng(5)
    blobs = {key: random.normal(0, 0.05, shape).astype(np.float32) for key, shape in SHAPES.items()}
    write_caffemodel(
        folder / "start.caffemodel",
        Caffemodel(
            tuple(
                Layer(
                    LayerParameter(name=name, type="InnerProduct"),
                    blobs=(blobs[name, 0], blobs[name, 1]),
                )
                for name in ("ip1", "ip2")
            )
        ),
    )
    return folder


@dataclass(frozen=True)
class Run:
    folder: RunFolder
    result: TrainResult
    events: list[Event]

    @property
    def model(self) -> Caffemodel:
        return read_caffemodel(self.folder.final_weights)

    @property
    def masks(self) -> dict:
        return dict(read_mask(self.folder.final_mask).masks)


@pytest.fixture(scope="module")
def run(small, digits) -> Callable[..., Run]:
    """Train the small net in a folder."""

    def run(engine: Engine, folder: Path, **fields) -> Run:
        told = {"weights": small / "start.caffemodel", "test_interval": 0, "snapshot": 0} | fields
        request = TrainRequest(solver=small / "solver.prototxt", data=digits, seed=3, **told)
        events: list[Event] = []
        return Run(RunFolder(folder), train(request, folder, engine, events.append), events)

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory, request) -> Callable[[str, str], Run]:
    """Return a run of an engine and a kind in one go, all its snapshots kept; each made once."""
    made: dict[tuple[str, str], Run] = {}

    def whole(name: str, kind: str) -> Run:
        if (name, kind) not in made:
            engine = request.getfixturevalue(f"{name}_engine")
            folder = tmp_path_factory.mktemp("whole") / "run"
            kept = {"keep_snapshots": True, "checkpoints": (1, 10, MIDDLE)}
            made[name, kind] = run(engine, folder, masking=MASKINGS[kind], **kept)
        return made[name, kind]

    return whole


def killed_halfway(made: Run, folder: Path) -> None:
    """Copy a run as it was after its snapshot in the middle."""
    shutil.copytree(made.folder.path, folder)
    left = RunFolder(folder)
    for path in (left.result, left.final_weights, left.final_mask):
        path.unlink(missing_ok=True)  # weights on few levels leave no mask
    remove_snapshot(str(left.snapshots), END)


@all_kinds
def test_training_in_two_parts_is_training_in_one_bit_for_bit(kind, engine, whole, run, tmp_path):
    one = whole(engine.name, kind)
    killed_halfway(one, tmp_path / "run")
    two = run(engine, tmp_path / "run", masking=MASKINGS[kind])

    assert two.result.weights_sha256 == one.result.weights_sha256
    assert two.folder.final_weights.read_bytes() == one.folder.final_weights.read_bytes()
    assert two.result.mask_sha256 == one.result.mask_sha256


@kinds
def test_pruned_weights_are_plus_zero_in_what_is_left_and_the_mask_is_there(kind, engine, whole):
    made = whole(engine.name, kind)

    assert made.result.mask_sha256 == sha256_of(made.folder.final_mask)
    assert set(made.masks) == set(MOVING)
    for (name, index), mask in made.masks.items():
        blob = made.model.layer(name).blobs[index]
        assert (blob[~mask].view(np.int32) == 0).all()
        assert 0 < np.count_nonzero(blob) <= np.count_nonzero(mask) < mask.size
    assert made.result.final_test.accuracy > made.result.first_test.accuracy
    assert made.result.revived == 0


def test_what_is_tested_at_the_end_is_what_is_left(engine, whole, run, tmp_path):
    made = whole(engine.name, "surgery")
    again = run(engine, tmp_path, weights=made.folder.final_weights, max_iter=1)

    assert again.result.first_test.correct == made.result.final_test.correct
    assert again.result.first_test.loss == pytest.approx(made.result.final_test.loss, rel=1e-5)


def dense_weights(made: Run, iteration: int) -> Caffemodel:
    prefix = made.folder.snapshots / f"snapshot_iter_{iteration}"
    assert not prefix.with_name(f"{prefix.name}.masks.npz").exists()
    return read_caffemodel(Path(f"{prefix}.caffemodel"))


def test_few_bits_leave_levels_and_keep_dense_weights_in_snapshots(engine, whole):
    made = whole(engine.name, "few bits")
    dense = dense_weights(made, END)

    assert made.result.mask_sha256 is None
    assert not made.folder.final_mask.exists()
    for blob in MASKINGS["few bits"].blobs:
        ours, theirs = (model.layer(blob.layer).blobs[0] for model in (made.model, dense))
        assert len(np.unique(ours)) == blob.count < len(np.unique(theirs))
        assert np.array_equal(on_few_levels(theirs, blob), ours)
    for key in (("ip1", 1), ("ip2", 1)):
        assert np.array_equal(made.model.layer(key[0]).blobs[1], dense.layer(key[0]).blobs[1])
    assert made.result.final_test.accuracy > made.result.first_test.accuracy
    first = dense_weights(made, 1).layer("ip1").blobs[0]
    moved = np.abs(first - dense.layer("ip1").blobs[0])
    assert (moved > 0).mean() > 0.5  # the gradient goes straight through


def test_few_bits_go_on_from_a_solverstate_too(whole, run, torch_engine, tmp_path):
    one = whole("torch", "few bits")
    state = one.folder.snapshots / f"snapshot_iter_{MIDDLE}.solverstate"
    rules = {"masking": MASKINGS["few bits"], "weights": None}
    two = run(torch_engine, tmp_path / "run", restore=state, **rules)

    assert two.result.weights_sha256 == one.result.weights_sha256


@pytest.mark.real_caffe
def test_engines_agree_on_few_bits(whole):
    caffe, torch = whole("caffe", "few bits"), whole("torch", "few bits")
    for at in (1, 10):
        for key, blob in dense_weights(caffe, at).blobs():
            ours = dense_weights(torch, at).layer(key[0]).blobs[key[1]]
            assert np.abs(ours - blob).max() < 1e-5
    for blob in MASKINGS["few bits"].blobs:
        ours, theirs = (model.layer(blob.layer).blobs[0] for model in (torch.model, caffe.model))
        # Rounding decides on what lies between two levels; from there on gradients part
        assert (np.abs(ours - theirs) > 1e-4).mean() < 0.01
    assert torch.result.final_test.accuracy == pytest.approx(
        caffe.result.final_test.accuracy, abs=0.02
    )


def test_few_bits_of_a_pruned_net_keep_its_mask(engine, run, small, tmp_path):
    random = np.random.default_rng(1)
    start = {key: random.random(SHAPES[key]) < 0.5 for key in MOVING}
    write_mask(tmp_path / "start.mask.h5", MaskFile(start, "0" * 64, "random"))
    rules = FewBits.of({"ip1": level_rule("2bits:min-max"), "ip2": level_rule("binary")})
    made = run(engine, tmp_path / "run", masking=rules, mask=tmp_path / "start.mask.h5", max_iter=9)

    for blob in rules.blobs:
        ours, kept = made.model.layer(blob.layer).blobs[0], start[blob.key]
        assert (ours[~kept].view(np.int32) == 0).all()
        assert len(np.unique(ours[kept])) == blob.count
    assert made.result.revived == 0


def snapshot(made: Run, iteration: int) -> tuple[Caffemodel, list[np.ndarray]]:
    prefix = made.folder.snapshots / f"snapshot_iter_{iteration}"
    return read_caffemodel(Path(f"{prefix}.caffemodel")), read_mask_state(str(prefix))[0]


def test_surgery_brings_weights_back_and_keeps_dense_ones_in_snapshots(engine, whole):
    made = whole(engine.name, "surgery")
    dense, early = snapshot(made, 10)
    last, late = snapshot(made, END)

    assert any((~old & new).any() for old, new in zip(early, late, strict=True))
    assert any((old & ~new).any() for old, new in zip(early, late, strict=True))
    for (name, index), old, new in zip(MOVING, early, late, strict=True):
        assert (dense.layer(name).blobs[index][~old] != 0).all()
        assert (last.layer(name).blobs[index] * new == made.model.layer(name).blobs[index]).all()


def test_gradual_masks_only_shrink_and_follow_the_law(engine, whole):
    made, schedule = whole(engine.name, "gradual"), CubicSchedule(4, 5, 7)
    before = [np.ones(SHAPES[key], np.bool_) for key in MOVING]
    for iteration in (1, 10, MIDDLE, END):
        model, masks = snapshot(made, iteration)
        for key, old, mask, final in zip(MOVING, before, masks, (0.9, 0.6), strict=True):
            gone = round(schedule.sparsity(iteration - 1, 0.1, final) * mask.size)
            assert np.count_nonzero(~mask) == gone
            assert not (mask & ~old).any()
            assert not model.layer(key[0]).blobs[key[1]][~mask].any()
        before = masks


def test_masks_made_once_are_plain_training_with_these_masks(engine, run, small, tmp_path):
    once = DynamicSurgery.of({"ip1": 0.5, "ip2": 0.3}, stop=1)
    moved = run(engine, tmp_path / "moved", masking=once, max_iter=12)
    start = read_caffemodel(small / "start.caffemodel")
    write_caffemodel(tmp_path / "pruned.caffemodel", apply_masks(start, moved.masks))
    write_mask(tmp_path / "kept.mask.h5", MaskFile(moved.masks, "0" * 64, "threshold"))
    given = {"weights": tmp_path / "pruned.caffemodel", "mask": tmp_path / "kept.mask.h5"}
    fixed = run(engine, tmp_path / "fixed", max_iter=12, **given)

    assert fixed.result.mask_sha256 is None
    for key, blob in fixed.model.blobs():
        assert (blob == moved.model.layer(key[0]).blobs[key[1]]).all()


@pytest.mark.real_caffe
@kinds
def test_engines_agree(kind, whole):
    caffe, torch = whole("caffe", kind), whole("torch", kind)
    for ours, theirs in zip(snapshot(torch, 1)[1], snapshot(caffe, 1)[1], strict=True):
        assert (ours == theirs).all()
    parted = sum(np.count_nonzero(torch.masks[key] != mask) for key, mask in caffe.masks.items())
    assert parted <= 3  # of 15,880: rounding may decide on what lies at a limit
    both = {key: mask & torch.masks[key] for key, mask in caffe.masks.items()}
    for key, blob in caffe.model.blobs():
        ours = torch.model.layer(key[0]).blobs[key[1]]
        apart = np.abs(ours - blob)[both.get(key, np.ones(blob.shape, np.bool_))]
        assert apart.max() < 1e-5
    assert torch.result.final_test.accuracy == pytest.approx(
        caffe.result.final_test.accuracy, abs=0.02
    )


def test_a_snapshot_whose_masks_are_damaged_is_passed_over(whole, run, torch_engine, tmp_path):
    one = whole("torch", "surgery")
    killed_halfway(one, tmp_path / "run")
    masks = tmp_path / "run" / "snapshots" / f"snapshot_iter_{MIDDLE}.masks.npz"
    masks.write_bytes(masks.read_bytes()[:-7])
    two = run(torch_engine, tmp_path / "run", masking=MASKINGS["surgery"])

    assert two.result.weights_sha256 == one.result.weights_sha256
    told = [event for event in two.events if event.event in ("anew", "resumed")]
    assert [(event.event, event.iteration) for event in told] == [("anew", 0), ("resumed", 10)]
    assert f"snapshot_iter_{MIDDLE}.masks.npz is not as it was written" in told[0].message


def test_a_mask_file_that_was_changed_is_made_anew(whole, run, torch_engine, tmp_path):
    one = whole("torch", "gradual")
    shutil.copytree(one.folder.path, tmp_path / "run")
    mask = tmp_path / "run" / "final.mask.h5"
    mask.write_bytes(mask.read_bytes()[:-7])
    two = run(torch_engine, tmp_path / "run", masking=MASKINGS["gradual"])

    assert [event.message for event in two.events if event.event == "anew"] == [
        f"{mask} is not as it was written: its checksum is another one; it is made anew"
    ]
    assert sha256_of(mask) == two.result.mask_sha256 == one.result.mask_sha256


def test_masks_that_stay_and_masks_to_begin_with(engine, run, small, tmp_path):
    random = np.random.default_rng(1)
    start = {key: random.random(SHAPES[key]) < 0.5 for key in MOVING}
    write_mask(tmp_path / "start.mask.h5", MaskFile(start, "0" * 64, "random"))
    moving = GradualMagnitude.of({"ip1": 0.7}, every=2, changes=3, initial=0.2)
    made = run(
        engine, tmp_path / "run", masking=moving, mask=tmp_path / "start.mask.h5", max_iter=9
    )

    assert (made.masks["ip2", 0] == start["ip2", 0]).all()
    assert not (made.masks["ip1", 0] & ~start["ip1", 0]).any()
    assert np.count_nonzero(~made.masks["ip1", 0]) == round(0.7 * 15680)


@pytest.mark.real_caffe
@pytest.mark.parametrize(
    ("first", "second", "kind"), [("caffe", "torch", "gradual"), ("torch", "caffe", "surgery")]
)
def test_a_run_begun_in_one_engine_goes_on_in_the_other(
    first, second, kind, whole, run, tmp_path, request
):
    alone = whole(first, kind)
    killed_halfway(alone, tmp_path / "run")
    engine = request.getfixturevalue(f"{second}_engine")
    made = run(engine, tmp_path / "run", masking=MASKINGS[kind])

    parted = sum(np.count_nonzero(made.masks[key] != mask) for key, mask in alone.masks.items())
    assert parted <= 3
    assert made.result.final_test.accuracy == pytest.approx(
        alone.result.final_test.accuracy, abs=0.02
    )
