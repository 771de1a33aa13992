"""Two experiments side by side: made-up nets whose answers are known, weights in run folders."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.cli.report import report
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import (
    DataSet,
    ExperimentResult,
    Point,
    PretrainingRecord,
    write_result,
)
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.formats.right_answers import pack_answers
from pycaffe_prune.reports.transfer.order import after_one_set, compared, difference_of, gaps_of
from pycaffe_prune.reports.transfer.study import study
from pycaffe_prune.reports.transfer.write import write_study

IMAGES, SEEDS, TOTAL = 200, (1, 2, 3), 266_200
ALPHAS, SHARES = (1.0, 1.5, 2.0), (0.7, 0.9, 0.99)
NET = """
layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 6 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "d" top: "ip1"
  inner_product_param { num_output: 20 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
"""
Make = Callable[..., Point]
Results = Callable[..., ExperimentResult]


def answered(point: Point, right: NDArray[np.bool_]) -> Point:
    """The point with these answers in its last test."""
    last = point.rounds[-1]
    after = last.after.model_copy(
        update={
            "accuracy": right.mean(),
            "correct": int(right.sum()),
            "images": len(right),
            "right_answers": pack_answers(right),
        }
    )
    return point.model_copy(
        update={"rounds": (*point.rounds[:-1], last.model_copy(update={"after": after}))}
    )


def right(wrong: int) -> NDArray[np.bool_]:
    """All but the first ``wrong`` images."""
    return np.arange(IMAGES) >= wrong


def made(
    point: Make, result_of: Results, units: Mapping[int, int], seeds: tuple[int, ...] = SEEDS
) -> ExperimentResult:
    """Connection pruning has 20 wrong, or 40 at the end; units as many as told by units kept."""
    points = []
    for seed in seeds:
        points.append(answered(point("baseline", 0, 1, seed=seed), right(10)))
        for alpha, share in zip(ALPHAS, SHARES, strict=True):
            made_by = point("connections", round(share * TOTAL), 1, alpha=alpha, seed=seed)
            points.append(answered(made_by, right(40 if share == SHARES[-1] else 20)))
        for kept, wrong in units.items():
            removed = TOTAL - (784 * kept + 100 * kept + 1000)
            made_by = point("units", removed, 1, units={"ip1": kept, "ip2": 100}, seed=seed)
            points.append(answered(made_by, right(wrong + seed - 2)))
    rows = [
        {"kind": "connections", "alphas": ALPHAS},
        {"kind": "units", "layer": "ip1", "layers": ()},
    ]
    return result_of(points, settings={"methods": rows})


def pretrained(result: ExperimentResult) -> ExperimentResult:
    other = result.data.model_copy(update={"train_sha256": "c" * 64})
    after = result.points[0].rounds[-1].after
    return result.model_copy(
        update={
            "preset": "pretrained",
            "pretraining": tuple(_record(s, other, after) for s in SEEDS),
        }
    )


def _record(seed: int, data: DataSet, after: object) -> PretrainingRecord:
    return PretrainingRecord.model_validate(
        {"seed": seed, "data": data, "iterations": 9, "after": after, "seconds": 1}
    )


def test_units_are_compared_with_connections_at_their_own_reduction(point, result_of):
    gaps = list(gaps_of(made(point, result_of, {60: 30, 17: 20, 1: 50})).values())
    assert [gap.seeds for gap in gaps] == [SEEDS, SEEDS]  # one unit lies beyond the curve
    assert [len(gap.right) for gap in gaps] == [3, 3]
    plain, mixed = (compared([gap]) for gap in gaps)
    assert plain.difference == Fraction(-10, IMAGES)
    # At 94 % the curve is between 20 and 40 wrong.
    at = (float(gaps[1].reduction) - 0.9) / 0.09
    assert float(mixed.difference) == pytest.approx(20 * at / IMAGES, abs=0.01 * 20 / IMAGES)
    assert plain.interval.high < 0
    # Seeds differ by one image: the interval over them is Student's.
    assert plain.over_seeds is not None
    assert plain.over_seeds.high - plain.over_seeds.low == pytest.approx(
        2 * 2.484 / IMAGES, rel=0.01
    )
    both = compared(gaps)
    assert both.difference == (plain.difference + mixed.difference) / 2


def test_after_one_set_connections_are_as_their_first_retraining_left_them(point, result_of):
    whole = made(point, result_of, {60: 30, 17: 30})
    first = after_one_set(whole)
    assert list(gaps_of(first)) == list(gaps_of(whole))
    longer = []
    for one in whole.points:
        later = answered(one, right(0)).rounds
        more = {"rounds": one.rounds + later} if one.method == "connections" else {}
        longer.append(one.model_copy(update=more))
    again = after_one_set(whole.model_copy(update={"points": tuple(longer)}))
    assert again == first


def test_a_difference_of_orders_is_taken_image_by_image(point, result_of):
    first, second = (
        list(gaps_of(made(point, result_of, {60: wrong})).values()) for wrong in (20, 30)
    )
    change = difference_of(first, second)
    assert change.difference == Fraction(10, IMAGES)
    assert change.over_seeds == pytest.approx((10 / IMAGES, 10 / IMAGES))
    same = difference_of(first, first)
    assert (same.difference, *same.interval) == (0, 0, 0)
    other = list(gaps_of(made(point, result_of, {60: 20}, seeds=(1, 2))).values())
    with pytest.raises(FormatError, match="are not the same"):
        difference_of(first, other)


def _silent(point: Point) -> Point:
    after = point.rounds[-1].after.model_copy(update={"right_answers": None})
    return point.model_copy(
        update={"rounds": (point.rounds[-1].model_copy(update={"after": after}),)}
    )


def test_results_that_do_not_tell_enough_are_refused(point, result_of):
    whole = made(point, result_of, {60: 30})
    silent = [one if one.method != "units" else _silent(one) for one in whole.points]
    for points, message in (
        (silent, "does not tell which images"),
        ([one for one in whole.points if one.method != "units"], "has no unit- or no connection"),
        (whole.points[:-1], "not one net of each seed"),
    ):
        with pytest.raises(FormatError, match=message):
            gaps_of(whole.model_copy(update={"points": tuple(points)}))


def run_folder(folder: Path, result: ExperimentResult) -> Path:
    write_result(folder / "result.json", result)
    net = text_format.Parse(NET, NetParameter())
    stages = ["baseline", *(["pretraining"] if result.pretraining else [])]
    for number, stage in enumerate(stages):
        for seed in SEEDS:
            random = np.random.default_rng([number, seed])
            place = folder / "stages" / f"{stage}-seed{seed}-0123456789ab" / "train"
            layers = [
                Layer(layer, (random.normal(size=shape).astype(np.float32),))
                for layer, shape in zip(net.layer[1:], [(20, 6), (10, 20)], strict=True)
            ]
            place.mkdir(parents=True)
            write_prototxt(place / "net.prototxt", net)
            write_caffemodel(place / "final.caffemodel", Caffemodel(tuple(layers)))
    return folder


def test_a_study_has_both_orders_their_change_and_the_weights(point, result_of, tmp_path):
    better = pretrained(made(point, result_of, {60: 15, 17: 15}))
    first = run_folder(tmp_path / "a", better)
    second = run_folder(tmp_path / "b", made(point, result_of, {60: 35, 17: 45}))
    found = study(first, second)
    assert (found.pretrained.order.side, found.control.order.side) == ("above", "below")
    assert found.change.side == "above"
    assert found.change_after_one_set == found.change  # each of these nets had one set
    assert found.change.points == pytest.approx(
        found.pretrained.order.points - found.control.order.points
    )
    assert found.pretrained.lost["units"] == pytest.approx(100 * 5 / IMAGES)
    assert [net.stage for net in found.pretrained.nets[:2]] == ["pre-trained", "fine-tuned"]
    assert {net.stage for net in found.control.nets} == {"from random values"}
    shares = list(found.control.nets[0].shape.layers[0].below)
    assert shares == ["0.5", "1", "1.5", "1.6", "2", "2.2"]
    page = write_study(found, tmp_path / "out").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"transfer.{kind}" for kind in ("json", "md", "png", "svg")
    }
    assert type(found).model_validate_json((tmp_path / "out/transfer.json").read_text()) == found
    assert "unit pruning is better" in page
    assert "connection pruning is better" in page
    assert "pre-training favours unit pruning" in page
    command = [str(first), "--control", str(second), "--out", str(tmp_path / "told")]
    said = CliRunner().invoke(report, command)
    assert (said.exit_code, (tmp_path / "told/transfer.md").read_text()) == (0, page)
    both = CliRunner().invoke(report, [str(first), *command[1:], str(second)])
    assert (both.exit_code, "--control is held against one RUN" in both.output) == (2, True)
    with pytest.raises(FormatError, match="and then one without it"):
        study(second, first)
    (tmp_path / "b/stages/baseline-seed2-0123456789ab").rename(tmp_path / "b/stages/gone")
    with pytest.raises(FormatError, match="holds 0 stages baseline-seed2"):
        study(first, second)
