"""Methods that choose a mask and keep to it: one small real run of them all, and what it left."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.experiments.result import ExperimentResult, Point, read_result
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.mask import MaskFile, read_mask
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.pruning.connections import prune_to_global_ratio, prune_to_ratios
from tests.methods.conftest import run_methods, stage

METHODS = """
[[methods]]
kind = "magnitude"
sparsities = [0.75]
rounds = 2
scope = "global"
iterations = 4
[[methods]]
kind = "random-connections"
sparsities = [0.5]
seed = 3
iterations = 0
[[methods]]
kind = "obd"
sparsities = [0.5]
batches = 4
weight_decay = 0.0005
scope = "global"
iterations = 0
[[methods]]
kind = "fisher"
sparsities = [0.5]
batches = 2
scope = "global"
iterations = 0
[[methods]]
kind = "rewinding"
sparsities = [0.5]
to = 3
iterations = 0
[[methods]]
kind = "l1-then-threshold"
weight_decay = 0.01
penalised = 30
sparsities = [0.5]
"""
LAYERS = ["ip1", "ip2", "ip3"]
KEYS = [(name, 0) for name in LAYERS]
WEIGHTS = 784 * 20 + 20 * 12 + 12 * 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The folder of the experiment, run by the engine torch."""
    place = tmp_path_factory.mktemp("sparse")
    run_methods(place, digits, METHODS)
    return place / "run"


@pytest.fixture(scope="module")
def result(folder: Path) -> ExperimentResult:
    return read_result(folder / "result.json")


def left(place: Path) -> tuple[Caffemodel, MaskFile]:
    return read_caffemodel(place / "train/final.caffemodel"), read_mask(place / "kept.mask.h5")


def chosen(folder: Path, result: ExperimentResult) -> Caffemodel:
    """The initial training that is pruned."""
    (best,) = [point for point in result.points if point.method == "baseline" and point.selected]
    return read_caffemodel(stage(folder, f"baseline-seed{best.seed}") / "train/final.caffemodel")


def point(result: ExperimentResult, method: str) -> Point:
    (found,) = [point for point in result.points if point.method == method]
    return found


@pytest.mark.parametrize(
    ("method", "gone"),
    [
        ("magnitude", 0.75),
        ("random-connections", 0.5),
        ("obd", 0.5),
        ("fisher", 0.5),
        ("rewinding", 0.5),
        ("l1-then-threshold", 0.5),
    ],
)
def test_a_point_has_its_sparsity(result: ExperimentResult, method: str, gone: float) -> None:
    last = point(result, method).rounds[-1]
    assert sum(layer.weights - layer.kept for layer in last.layers) == round(gone * WEIGHTS)
    assert point(result, method).setting.text == f"sparsity = {gone:g}"


def test_without_retraining_no_image_is_seen_and_survivors_keep_their_values(
    folder: Path, result: ExperimentResult
) -> None:
    original = chosen(folder, result)
    for method, label in [("obd", "obd"), ("fisher", "fisher"), ("random-connections", "random")]:
        model, mask = left(stage(folder, f"{label}-0.5-round1"))
        assert point(result, method).rounds[-1].images == 0
        for key in KEYS:
            expected = np.where(mask.masks[key], original.layer(key[0]).blobs[0], 0)
            np.testing.assert_array_equal(model.layer(key[0]).blobs[0], expected)


def test_measured_masks_are_those_of_neither_magnitude_nor_each_other(
    folder: Path, result: ExperimentResult
) -> None:
    _, by_magnitude = prune_to_global_ratio(chosen(folder, result), 0.5, LAYERS)
    masks = [left(stage(folder, f"{name}-0.5-round1"))[1] for name in ("obd", "fisher")]
    assert masks[0].parameters["batches"] == 4
    differing = [
        any((one[key] != other[key]).any() for key in KEYS)
        for one, other in [
            (by_magnitude, masks[0].masks),
            (by_magnitude, masks[1].masks),
            (masks[0].masks, masks[1].masks),
        ]
    ]
    assert differing == [True, True, True]


def test_what_a_round_pruned_stays_pruned(folder: Path, result: ExperimentResult) -> None:
    _, expected = prune_to_global_ratio(chosen(folder, result), 0.5, LAYERS)
    _, first = left(stage(folder, "magnitude-0.5-round1"))
    model, second = left(stage(folder, "magnitude-0.75-round2"))
    for key in KEYS:
        np.testing.assert_array_equal(first.masks[key], expected[key])
        assert not (second.masks[key] & ~first.masks[key]).any()
        assert not model.layer(key[0]).blobs[0][~second.masks[key]].any()


def test_rewound_weights_have_their_early_values(folder: Path, result: ExperimentResult) -> None:
    _, masks = prune_to_ratios(chosen(folder, result), dict.fromkeys(LAYERS, 0.5))
    early = read_caffemodel(stage(folder, "beginning-3") / "train/final.caffemodel")
    model, mask = left(stage(folder, "rewound-magnitude-0.5-round1"))
    for key, kept in masks.items():
        np.testing.assert_array_equal(mask.masks[key], kept)
        np.testing.assert_array_equal(
            model.layer(key[0]).blobs[0], np.where(kept, early.layer(key[0]).blobs[0], 0)
        )
    assert [row.images for row in point(result, "rewinding").rounds] == [3 * 32, 0]


def test_a_large_penalty_leaves_less_than_the_solvers(
    folder: Path, result: ExperimentResult
) -> None:
    place = stage(folder, "L1-0.01")
    assert read_solver(place / "solver.prototxt").regularization_type == "L1"
    penalised = read_caffemodel(place / "train/final.caffemodel")
    original = chosen(folder, result)
    sums = [
        sum(float(np.abs(model.layer(name).blobs[0]).sum()) for name in LAYERS)
        for model in (penalised, original)
    ]
    assert sums[0] < 0.7 * sums[1]
    _, mask = left(stage(folder, "threshold-L1-0.01-0.5"))
    _, expected = prune_to_global_ratio(penalised, 0.5, LAYERS)
    for key in KEYS:
        np.testing.assert_array_equal(mask.masks[key], expected[key])
