"""A small net trained on the digits, and analyses of it whose points are given."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.experiments.sensitivity.measure import Analysis, SensitivityRequest, plan
from pycaffe_prune.experiments.sensitivity.result import SensitivityResult, write_sensitivity
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel

RATES = (0.3, 0.6, 0.9)
SIZES = {"ip1": 20 * 784, "ip2": 12 * 20, "ip3": 10 * 12}


@pytest.fixture(scope="session")
def engine(caffe_python: Path) -> CaffeEngine:
    return CaffeEngine(caffe_python)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, engine: CaffeEngine, net_text: str
) -> Path:
    """A folder with net.prototxt and w.caffemodel, trained on the digits."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.prototxt").write_text(net_text)
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.02 momentum: 0.9 lr_policy: "fixed" max_iter: 300'
    )
    request = TrainRequest(solver=folder / "solver.prototxt", data=digits, test_interval=0)
    train(request, folder / "run", engine, lambda _: None)
    shutil.copy(folder / "run" / "final.caffemodel", folder / "w.caffemodel")
    return folder


@pytest.fixture
def request_(trained: Path, digits: Path) -> SensitivityRequest:
    return SensitivityRequest(
        net=trained / "net.prototxt", weights=trained / "w.caffemodel", data=digits, rates=RATES
    )


@pytest.fixture
def score_of(digits: Path, engine: CaffeEngine, tmp_path: Path) -> Callable[..., int]:
    """Test one net and its weights by themselves; give the number of right answers."""

    def score(net: Path, model: Caffemodel, images: int | None = None) -> int:
        path = tmp_path / "alone.caffemodel"
        write_caffemodel(path, model)
        folder = RunFolder(tmp_path / "alone")
        (found,) = engine.evaluate(folder, prepare_evaluation(net, [path], digits, folder, images))
        return found.correct

    return score


def finished(request: SensitivityRequest, out: Path, drops: dict[str, list[int]]) -> Analysis:
    """An analysis whose points are given: images lost at each rate."""
    analysis = plan(request, out)
    score = {"accuracy": 0.9, "correct": 270, "images": 297, "loss": 0.3, "finite": True}
    points = [
        {
            "layer": layer,
            "rate": rate,
            "kept": 1,
            "alpha": 1.0,
            "score": score | {"correct": 270 - lost},
        }
        for layer, losses in drops.items()
        for rate, lost in zip(RATES, losses, strict=True)
    ]
    content = {
        "title": "small",
        "data": "digits",
        "is_sample": True,
        "engine": "caffe",
        "versions": {},
        "machine": {"cpu": "x", "cores": 1, "system": "y"},
        "settings": analysis.settings.model_dump(),
        "baseline": score,
        "points": points,
    }
    write_sensitivity(out / "sensitivity.json", SensitivityResult.model_validate(content))
    return plan(request, out)
