"""Sensitivity on scikit-learn's digits: each point is what pruning and testing by hand gives."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import FormatError, InterruptedRunError, PruneError, SurgeryError
from pycaffe_prune.experiments.sensitivity.measure import (
    SensitivityRequest,
    measure,
    plan,
    working_in,
)
from pycaffe_prune.experiments.sensitivity.result import (
    SensitivityResult,
    read_sensitivity,
)
from pycaffe_prune.experiments.sensitivity.suggestion import alphas_of_rates, cost_curves, suggest
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.allocation import predicted_cost, uniform
from pycaffe_prune.pruning.connections import prune_connections, prune_to_ratios, thresholds
from pycaffe_prune.pruning.units import choose_units, delete_units
from tests.experiments.sensitivity.conftest import RATES, SIZES, finished

pytestmark = pytest.mark.real_caffe


def ignore(_: SensitivityResult) -> None:
    """An observer that looks away."""


@pytest.mark.parametrize("images", [None, 120])
def test_each_point_is_one_layer_pruned_and_tested_by_itself(
    request_: SensitivityRequest,
    engine: CaffeEngine,
    tmp_path: Path,
    score_of: Callable[..., int],
    images: int | None,
) -> None:
    out = tmp_path / "out"
    seen: list[int] = []
    analysis = plan(replace(request_, images=images), out)
    assert not out.exists()
    result = measure(analysis, engine, lambda found: seen.append(len(found.points)))
    assert seen == list(range(1, 10))
    assert read_sensitivity(out / "sensitivity.json") == result
    assert {layer.layer: layer.size for layer in result.settings.layers} == SIZES
    assert [(point.layer, point.rate) for point in result.points] == [
        (layer, rate) for layer in SIZES for rate in RATES
    ]
    model = read_caffemodel(request_.weights)
    assert result.baseline.correct == score_of(request_.net, model, images)
    assert result.baseline.images == (images or 297)
    for layer, rate in [("ip1", 0.9), ("ip2", 0.6), ("ip3", 0.9)]:
        pruned, masks = prune_to_ratios(model, {layer: rate})
        (point,) = [point for point in result.curve(layer) if point.rate == rate]
        assert point.score.correct == score_of(request_.net, pruned, images)
        assert point.kept == masks[layer, 0].sum() == SIZES[layer] - round(rate * SIZES[layer])
        again = thresholds(model, model, point.alpha or 0, [layer])
        np.testing.assert_array_equal(prune_connections(model, again)[1][layer, 0], masks[layer, 0])


def test_units_score_as_the_net_that_they_are_deleted_from(
    request_: SensitivityRequest,
    engine: CaffeEngine,
    tmp_path: Path,
    score_of: Callable[..., int],
) -> None:
    units = replace(request_, method="units", criterion="inorm")
    result = measure(plan(units, tmp_path / "out"), engine, ignore)
    assert {layer.layer: layer.size for layer in result.settings.layers} == {"ip1": 20, "ip2": 12}
    net, model = read_net(request_.net), read_caffemodel(request_.weights)
    for point in result.points:
        kept = choose_units(net, model, {point.layer: point.rate}, criterion="inorm")
        small_net, small = delete_units(net, model, kept)
        write_prototxt(tmp_path / "small.prototxt", small_net)
        assert point.score.correct == score_of(tmp_path / "small.prototxt", small)
        assert point.kept == kept[point.layer].sum()
        assert point.alpha is None


def test_weights_in_hdf5_have_the_same_points(
    request_: SensitivityRequest, engine: CaffeEngine, tmp_path: Path
) -> None:
    write_hdf5_weights(tmp_path / "w.caffemodel.h5", read_caffemodel(request_.weights))
    few = replace(request_, rates=(0.8,))
    binary = measure(plan(few, tmp_path / "binary"), engine, ignore)
    hdf5 = replace(few, weights=tmp_path / "w.caffemodel.h5")
    assert measure(plan(hdf5, tmp_path / "hdf5"), engine, ignore).points == binary.points


class Interrupted(CaffeEngine):
    """Asks for an end after so many tests, as a user does."""

    tests = 3

    def evaluate(self, folder, job):  # type: ignore[no-untyped-def]
        for number, score in enumerate(super().evaluate(folder, job), 1):
            yield score
            if number == self.tests:
                raise InterruptedRunError("stopped")


def test_an_interrupted_analysis_goes_on_and_ends_with_the_same_points(
    request_: SensitivityRequest, engine: CaffeEngine, tmp_path: Path, caffe_python: Path
) -> None:
    whole = measure(plan(request_, tmp_path / "whole"), engine, ignore)
    out = tmp_path / "parts"
    with pytest.raises(InterruptedRunError, match="3 of 9 points done; the same command"):
        measure(plan(request_, out), Interrupted(caffe_python), ignore)
    left = plan(request_, out)
    assert len(left.todo) == 6
    assert measure(left, engine, ignore) == whole
    finished = plan(request_, out)
    assert finished.todo == []
    assert measure(finished, CaffeEngine(Path("/nowhere")), ignore) == whole


def test_points_of_two_engines_are_not_mixed(
    request_: SensitivityRequest, engine: CaffeEngine, tmp_path: Path, caffe_python: Path
) -> None:
    class Other(CaffeEngine):
        name = "other"

    with pytest.raises(InterruptedRunError):
        measure(plan(request_, tmp_path), Interrupted(caffe_python), ignore)
    with pytest.raises(FormatError, match="begun by the engine caffe; go on with --engine caffe"):
        measure(plan(request_, tmp_path), Other(caffe_python), ignore)


DROPS = {"ip1": [-2, 0, 3], "ip2": [5, 90, 80], "ip3": [1, 2, 3]}


def test_a_suggestion_is_measured_as_its_command_prunes_beside_one_alpha(
    request_: SensitivityRequest,
    engine: CaffeEngine,
    tmp_path: Path,
    score_of: Callable[..., int],
) -> None:
    analysis = finished(request_, tmp_path / "out", DROPS)
    assert analysis.earlier is not None
    result = suggest(analysis, analysis.earlier, 0.85, engine)
    assert read_sensitivity(tmp_path / "out" / "sensitivity.json") == result
    found = result.suggestion
    assert found is not None
    model = read_caffemodel(request_.weights)
    for measured in (found.suggested, found.single):
        assert measured.reduction == pytest.approx(0.85, abs=0.002)
        pruned = model
        for row in measured.layers:
            limits = thresholds(model, model, row.alpha, [row.layer])
            pruned, masks = prune_connections(pruned, limits)
            assert row.kept == masks[row.layer, 0].sum()
            assert row.weights == SIZES[row.layer]
        assert measured.score.correct == score_of(request_.net, pruned)
    assert len({row.alpha for row in found.single.layers}) == 1
    rates = {row.layer: 1 - row.kept / row.weights for row in found.suggested.layers}
    assert rates["ip2"] < 0.4 < rates["ip1"]  # ip2 loses a lot from there on
    curves = cost_curves(result)
    assert found.predicted_drop <= predicted_cost(curves, uniform(curves, 0.85))
    again = suggest(analysis, result, 0.85, CaffeEngine(Path("/nowhere")))
    assert again is result


def test_costs_are_what_is_lost_to_the_baseline_never_falling(
    request_: SensitivityRequest, tmp_path: Path
) -> None:
    result = finished(request_, tmp_path / "out", DROPS).earlier
    assert result is not None
    curves = cost_curves(result)
    assert curves["ip1"].costs == pytest.approx((0, 0, 0, 3 / 297))
    assert curves["ip2"].costs == pytest.approx((0, 5 / 297, 90 / 297, 90 / 297))
    assert {name: curve.weights for name, curve in curves.items()} == SIZES


def test_alphas_prune_the_rates_that_they_stand_for(request_: SensitivityRequest) -> None:
    model = read_caffemodel(request_.weights)
    rates = {"ip1": 0.731, "ip2": 0.25, "ip3": 0.0}
    places = {name: [(name, 0)] for name in rates}
    for name, alpha in alphas_of_rates(model, rates, places).items():
        assert alpha == float(f"{alpha:.5g}")
        _, masks = prune_connections(model, thresholds(model, model, alpha, [name]))
        gone = SIZES[name] - int(masks[name, 0].sum())
        assert gone == pytest.approx(rates[name] * SIZES[name], abs=2)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"rates": (0.5,)}, "rates"),
        ({"layers": "ip2"}, "layers"),
        ({"method": "units"}, "method, criterion, layers"),
        ({"images": 100}, "images"),
    ],
)
def test_a_folder_of_another_analysis_is_refused_and_left_alone(
    request_: SensitivityRequest, tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    finished(request_, tmp_path / "out", DROPS)
    before = (tmp_path / "out" / "sensitivity.json").read_bytes()
    with pytest.raises(FormatError, match=f"another analysis, with other {named}"):
        plan(replace(request_, **changed), tmp_path / "out")  # type: ignore[arg-type]
    assert (tmp_path / "out" / "sensitivity.json").read_bytes() == before


def unnamed(out: Path) -> None:
    """Make of a finished analysis one of a version that did not name what it judged."""
    found = json.loads((out / "sensitivity.json").read_text())
    del found["settings"]["accuracy_name"]
    (out / "sensitivity.json").write_text(json.dumps(found))


def test_an_analysis_judged_by_another_layer_is_another_one(
    request_: SensitivityRequest, trained: Path, tmp_path: Path
) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    finished(request_, one, DROPS)
    by_loss = replace(request_, accuracy="loss")
    with pytest.raises(FormatError, match="another analysis, with other accuracy"):
        plan(by_loss, one)
    again = plan(replace(request_, accuracy="accuracy"), one).earlier
    assert again is not None
    assert again.accuracy_name == "accuracy"
    unnamed(one)  # of one Accuracy there was one way to judge
    assert plan(request_, one).earlier == again
    with pytest.raises(FormatError, match="with other accuracy"):
        plan(by_loss, one)
    text = (trained / "net.prototxt").read_text()
    (tmp_path / "net.prototxt").write_text(
        text + 'layer { name: "top-5" type: "Accuracy" bottom: "ip3" bottom: "label" top: "top-5" '
        "accuracy_param { top_k: 5 } include { phase: TEST } }"
    )
    finished(replace(request_, net=tmp_path / "net.prototxt"), several, DROPS)
    unnamed(several)
    with pytest.raises(FormatError, match="with other accuracy"):
        plan(replace(request_, net=tmp_path / "net.prototxt"), several)


def test_the_chosen_layer_is_judged_and_named(
    request_: SensitivityRequest, engine: CaffeEngine, tmp_path: Path
) -> None:
    by_loss = replace(request_, accuracy="loss", rates=(0.5,), layers="ip3")
    result = measure(plan(by_loss, tmp_path), engine, ignore)
    scores = [result.baseline, *(point.score for point in result.points)]
    assert {score.accuracy_name for score in scores} == {"loss"} == {result.accuracy_name}
    with pytest.raises(FormatError, match="'nll' to judge by; there are: accuracy, loss"):
        plan(replace(request_, accuracy="nll"), tmp_path / "other")


def test_other_weights_are_another_analysis(request_: SensitivityRequest, tmp_path: Path) -> None:
    finished(request_, tmp_path / "out", DROPS)
    model = read_caffemodel(request_.weights)
    changed = model.with_blobs({("ip3", 1): model.layer("ip3").blobs[1] + 1})
    write_caffemodel(tmp_path / "other.caffemodel", changed)
    with pytest.raises(FormatError, match="with other weights"):
        plan(replace(request_, weights=tmp_path / "other.caffemodel"), tmp_path / "out")


def test_a_layer_that_is_not_there_is_refused(request_: SensitivityRequest, tmp_path: Path) -> None:
    with pytest.raises(SurgeryError, match=r"no layer 'fc6' .* ip1 \(InnerProduct\)"):
        plan(replace(request_, layers="fc6"), tmp_path / "out")


def test_a_damaged_file_is_refused_with_its_name(
    request_: SensitivityRequest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished(request_, out, DROPS)
    text = (out / "sensitivity.json").read_text()
    (out / "sensitivity.json").write_text(text.replace('"rate"', '"speed"'))
    with pytest.raises(FormatError, match=r"sensitivity\.json: points\.0\.rate"):
        plan(request_, out)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(PruneError, match="another process is working"),
        working_in(tmp_path),
    ):
        pytest.fail("two at once")


def test_every_matrix_of_a_recurrent_layer_is_pruned_and_counted(
    digits: Path, engine: CaffeEngine, tmp_path: Path, score_of: Callable[..., int]
) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    net.write_text(
        """
        layer { name: "d" type: "Data" top: "data" top: "label"
          data_param { source: "mnist_test_lmdb" batch_size: 99 backend: LMDB }
          transform_param { scale: 0.00390625 } }
        layer { name: "x" type: "Reshape" bottom: "data" top: "x"
          reshape_param { shape { dim: 1 dim: 99 dim: 784 } } }
        layer { name: "cont" type: "DummyData" top: "cont"
          dummy_data_param { shape { dim: 1 dim: 99 } data_filler { value: 1 } } }
        layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
          recurrent_param { num_output: 10 } }
        layer { name: "y" type: "Reshape" bottom: "h" top: "y" reshape_param { shape { dim: 99
          dim: 10 } } }
        layer { name: "accuracy" type: "Accuracy" bottom: "y" bottom: "label" top: "accuracy" }
        """
    )
    generator = np.random.default_rng(0)
    shapes = ((40, 784), (40,), (40, 10))
    blobs = tuple(generator.normal(0, 0.1, shape).astype(np.float32) for shape in shapes)
    (lstm,) = [layer for layer in read_net(net).layer if layer.type == "LSTM"]
    model = Caffemodel((Layer(lstm, blobs),))
    write_caffemodel(weights, model)
    request = SensitivityRequest(net, weights, digits, rates=(0.5, 0.9))
    analysis = plan(request, tmp_path / "out")
    assert [layer.size for layer in analysis.settings.layers] == [40 * 784 + 40 * 10]
    result = measure(analysis, engine, ignore)
    pruned, masks = prune_to_ratios(model, dict.fromkeys([("lstm", 0), ("lstm", 2)], 0.9))
    assert result.points[1].kept == sum(mask.sum() for mask in masks.values())
    assert result.points[1].score.correct == score_of(net, pruned)
    assert result.points[1].alpha is None  # each matrix has its own
    found = suggest(analysis, result, 0.7, engine).suggestion
    assert found is not None
    (row,) = found.suggested.layers
    limits = thresholds(model, model, row.alpha, [("lstm", 0), ("lstm", 2)])
    _, masks = prune_connections(model, limits)
    assert row.kept == sum(mask.sum() for mask in masks.values())
    assert found.suggested.reduction == pytest.approx(0.7, abs=0.002)
