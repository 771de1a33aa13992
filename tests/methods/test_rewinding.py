"""What is rewound to iteration k goes on as the initial training did from there."""

from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.experiments.result import ExperimentResult, read_result
from pycaffe_prune.experiments.stages import StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from tests.experiments.conftest import SOLVER
from tests.methods.conftest import run_methods, stage

METHODS = """
[[methods]]
kind = "rewinding"
sparsities = [0.0, 0.5]
to = 7
iterations = 23
"""


@pytest.fixture(
    scope="module", params=[pytest.param("caffe", marks=pytest.mark.real_caffe), "torch"]
)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: Path
) -> Path:
    """The folder of the experiment, run by each engine."""
    if request.param == "caffe":
        request.getfixturevalue("caffe_python")
    place = tmp_path_factory.mktemp("rewound")
    solver = SOLVER.replace('"fixed"', '"exp" gamma: 0.97')
    run_methods(place, digits, METHODS, engine=request.param, solver=solver)
    return place / "run"


def test_with_nothing_pruned_it_ends_where_the_initial_training_did(folder: Path) -> None:
    ends = [
        (stage(folder, label) / "train" / "final.caffemodel").read_bytes()
        for label in ("baseline-seed1", "rewound-magnitude-0-round1")
    ]
    assert ends[0] == ends[1]


def test_it_is_tested_before_and_only_its_own_images_count(folder: Path) -> None:
    result: ExperimentResult = read_result(folder / "result.json")
    begun, rewound = (
        StageOutput.model_validate_json((stage(folder, label) / "stage.json").read_bytes())
        for label in ("beginning-7", "rewound-magnitude-0-round1")
    )
    assert rewound.before.correct == begun.after.correct != rewound.after.correct
    assert rewound.iterations == 23
    points = [point for point in result.points if point.method == "rewinding"]
    assert [[row.images for row in point.rounds] for point in points] == [[7 * 32, 23 * 32]] * 2


def test_what_is_pruned_stays_pruned_whatever_its_momentum_was(folder: Path) -> None:
    place = stage(folder, "rewound-magnitude-0.5-round1")
    masks = read_mask(place / "kept.mask.h5").masks
    model = read_caffemodel(place / "train" / "final.caffemodel")
    assert all(
        not np.count_nonzero(model.layer(name).blobs[at][~kept])
        for (name, at), kept in masks.items()
    )
    assert {path.name for path in place.iterdir() if path.is_file()} >= {
        "stage.json",
        "kept.mask.h5",
    }
    assert not (place / "pruned.solverstate").exists()
