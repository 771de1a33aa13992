"""Foreseen rates beside the paper's Table 5 and what came out."""

import io

import numpy as np
import pytest
from rich.console import Console

from pycaffe_prune.cli.reproduce.experiment_data import known_data_set
from pycaffe_prune.cli.reproduce.prediction import prediction_table, telling_prediction
from pycaffe_prune.engines.base import Event, TestScore
from pycaffe_prune.experiments.plan import make_plan
from pycaffe_prune.experiments.result import LayerRate, PredictedRates, Prediction
from pycaffe_prune.experiments.spec import find_experiment, read_experiment
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.share import share_root


def _prediction(*alphas: float) -> Prediction:
    rates = tuple(
        PredictedRates(
            alpha=alpha,
            layers=(
                LayerRate(layer="fc6", weights=200, kept=50, reduction=0.75),
                LayerRate(layer="fc8_oxford_102", weights=100, kept=40, reduction=0.6),
            ),
            reduction=0.7,
        )
        for alpha in alphas
    )
    return Prediction(shrink=0.8017, rates=rates)


def _shown(experiment: str, prediction: Prediction) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(prediction_table(experiment, prediction))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_a_row_stands_beside_that_of_table_5_where_it_has_one():
    lines = _shown("caffenet-oxford102", _prediction(1.0, 1.1))
    assert "1 75.00/80.97 60.00/83.74 70.00/80.62" in lines
    assert "1.1 75.00/– 60.00/– 70.00/–" in lines
    assert any("0.8017" in line for line in lines)


def test_the_paper_has_no_such_table_for_other_networks():
    lines = _shown("lenet-300-100", _prediction(1.0))
    assert "1 75.00 60.00 70.00" in lines
    assert not any("Table 5" in line for line in lines)


@pytest.fixture
def begun(tmp_path):
    """An experiment of which all baselines are done and nothing else; its spec and its plan."""
    spec = read_experiment(find_experiment("lenet-300-100", "quick"))
    data_set = known_data_set(tmp_path / "none")
    solver = share_root() / spec.solver
    plan = make_plan(spec, solver, tmp_path / "run", tmp_path, data_set, "torch")
    for stage in plan.baselines:
        _finish(stage, np.random.default_rng(stage.seed).normal(size=(10, 20)))
    return spec, plan


def _finish(stage: Stage, weights: np.ndarray) -> None:
    score = TestScore(iteration=1, images=1, correct=1, accuracy=1, loss=0, finite=True)
    layers = stage.context.layers
    output = StageOutput(
        seed=1,
        kept=dict.fromkeys(layers, 1),
        before=score,
        after=score,
        iterations=1,
        seconds=0,
        versions={},
        files={},
    )
    write_text(stage.folder.output, output.model_dump_json())
    blobs = (weights.astype(np.float32),)
    held = tuple(Layer(LayerParameter(name=name, type="InnerProduct"), blobs) for name in layers)
    write_caffemodel(stage.folder.training.final_weights, Caffemodel(held, NetParameter()))


def _shown_at_once(spec, plan) -> list:
    shown = []
    telling_prediction(spec, plan, lambda *_: None, shown.append)
    return shown


def test_it_is_shown_once_when_the_last_baseline_is_done(begun):
    spec, plan = begun
    last = plan.baselines[-1]
    assert len(_shown_at_once(spec, plan)) == 1  # after an interruption
    last.folder.output.unlink()
    shown = []
    watch = telling_prediction(spec, plan, lambda *_: None, shown.append)
    _finish(last, np.ones((10, 20)))
    watch(last, Event(event="done"))
    assert shown == []
    for stage in (last, *(chain.stages[0] for chain in plan.chains("units"))):
        watch(stage, None)
    assert len(shown) == 1


def test_where_nothing_is_left_to_do_it_waits_for_what_was_measured(begun):
    spec, plan = begun
    for stage in plan.stages:
        _finish(stage, np.ones((10, 20)))
    assert _shown_at_once(spec, plan) == []


def test_a_network_from_which_nothing_can_be_foreseen_is_a_remark_and_stops_nothing(begun, capsys):
    spec, plan = begun
    for stage in plan.baselines:
        _finish(stage, np.full((10, 20), np.nan))
    assert _shown_at_once(spec, plan) == []
    said = capsys.readouterr().err
    assert "nothing can be foreseen from the unpruned network" in said
