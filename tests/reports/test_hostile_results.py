"""Strangers' results: impossible values are one sentence, and thousands of points are reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import ExperimentResult, Point, read_result
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.outputs.html import render_html
from pycaffe_prune.reports.outputs.write import print_summary, write_reports
from pycaffe_prune.reports.paper.compare import curve_of, on_curve
from pycaffe_prune.reports.plot import caption, plot_of
from pycaffe_prune.reports.rows import rows
from pycaffe_prune.screen import Screen
from pycaffe_prune.share import share_root

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
Change = Callable[[dict[str, Any]], None]
NAN, HUGE = float("nan"), 10**400


def _last(content: dict[str, Any]) -> dict[str, Any]:
    step: dict[str, Any] = content["points"][0]["rounds"][-1]
    return step


FAULTS: dict[str, Change] = {
    "wall_seconds": lambda it: it.update(wall_seconds=NAN),
    "points.0.seed": lambda it: it["points"][0].update(seed=HUGE),
    "points.0.alpha": lambda it: it["points"][0].update(alpha=NAN),
    "points.0.units.ip1": lambda it: it["points"][0].update(units={"ip1": -5}),
    "points.0.units.ip2": lambda it: it["points"][0].update(units={"ip2": 1 << 70}),
    "points.0.rounds": lambda it: it["points"][0].update(rounds=[]),
    "rounds.0.layers": lambda it: _last(it).update(layers=[]),
    "rounds.0.layers.0": lambda it: _last(it)["layers"][0].update(kept=10**9),
    "rounds.0.seconds": lambda it: _last(it).update(seconds=-1),
    "after.correct": lambda it: _last(it)["after"].update(correct=10**30),
    "rounds.0.after": lambda it: _last(it)["after"].update(correct=10_001),
    "after.accuracy": lambda it: _last(it)["after"].update(accuracy=1e300),
    "after.cycled": lambda it: _last(it)["after"].update(cycled=NAN),
    "after.cycled_images": lambda it: _last(it)["after"].update(cycled_images=0),
    "settings": lambda it: it.update(settings={"a": [NAN]}),
    "data.test_images": lambda it: it["data"].update(test_images=-1),
}


@pytest.mark.parametrize("place", FAULTS)
def test_a_value_that_no_run_has_is_one_sentence(
    place: str, typical: ExperimentResult, tmp_path: Path
) -> None:
    content = json.loads(typical.model_dump_json())
    FAULTS[place](content)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError) as refused:
        read_result(path)
    assert place in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "[" * 100_000, '{"points": ' * 5_000, "\ufeff{}", '"\ud800"']
)
def test_what_is_no_result_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError):
        read_result(path)


@pytest.mark.parametrize("left", ["no points", "no baseline", "none selected", "other layers"])
def test_results_with_parts_missing_are_reported(
    left: str, typical: ExperimentResult, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(typical.model_dump_json())
    points = content["points"]
    if left == "no points":
        points.clear()
    elif left == "no baseline":
        content["points"] = [point for point in points if point["method"] != "baseline"]
    elif left == "none selected":
        for point in points:
            point["selected"] = False
    else:
        _last(content)["layers"][0]["layer"] = "zz"
    result = ExperimentResult.model_validate_json(json.dumps(content))
    print_summary(result, Screen(width=200))
    assert capsys.readouterr().out
    assert render_html([result]).endswith("</html>")


def test_every_kept_result_is_within_the_bounds() -> None:
    for path in (share_root() / "results").glob("*/result.json"):
        assert read_result(path).points


def test_a_curves_values_are_those_of_its_knots_and_between_them(point: Make) -> None:
    points = [point("connections", at, 9_000 + at // 100, alpha=1.0) for at in (0, 1_000, 9_000)]
    curve = curve_of(points)
    for rate, value, name in curve:
        assert on_curve(curve, rate) == (value, (name,))
    middle = on_curve(curve, (curve[0][0] + curve[1][0]) / 2)
    assert middle is not None
    assert middle[0] == (curve[0][1] + curve[1][1]) / 2
    assert on_curve(curve, curve[-1][0] + 1) is None
    assert on_curve(curve, curve[0][0] - 1) is None
    assert on_curve([], curve[0][0]) is None


def test_what_is_found_in_a_result_is_found_once(typical: ExperimentResult) -> None:
    asked = []

    @once
    def count(result: ExperimentResult) -> int:
        asked.append(result)
        return len(result.points)

    other = typical.model_copy(update={"points": typical.points[:1]})
    assert [count(typical), count(typical), count(other)] == [*[len(typical.points)] * 2, 1]
    assert len(asked) == 2


def test_two_thousand_points_are_listed_in_part_and_written_whole(
    point: Make, result_of: MakeResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [
        point(method, 266_199 - at % 9_000, 9_000 - at % 7, alpha=at / 1_000, seed=at)
        for at in range(700)
        for method in ("connections", "units", "small")
    ]
    result = result_of([point("baseline", 0, 9_800), *points])
    print_summary(result, Screen(width=200))
    write_reports([result], tmp_path)
    assert "1,601 more points are in the report" in " ".join(capsys.readouterr().out.split())
    assert len(rows(result)) == 2_101
    assert len(caption(plot_of(result))) < 10_000
