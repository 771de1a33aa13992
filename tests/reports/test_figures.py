import xml.etree.ElementTree as ET
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.figures import STYLES, png, svg
from pycaffe_prune.reports.plot import METHOD_KINDS, PRESET_KINDS, Plot, plot_of

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
SVG = "{http://www.w3.org/2000/svg}"


def _markers(plot: Plot) -> dict[str, int]:
    """How many markers each method has in the SVG."""
    root = ET.fromstring(svg(plot))  # noqa: S314  (we have just made it)
    return {
        (group.get("id") or "").removeprefix("points-"): len(group.findall(f".//{SVG}use"))
        for group in root.iter(f"{SVG}g")
        if (group.get("id") or "").startswith("points-")
    }


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_svg_has_a_marker_for_each_point_inside_the_axes(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    plot = plot_of(data.draw(any_result))
    shown = [row.method for row in plot.inside]
    assert {method: count for method, count in _markers(plot).items() if count} == {
        method: shown.count(method) for method in set(shown)
    }


@pytest.mark.parametrize("kinds", [PRESET_KINDS, METHOD_KINDS])
def test_no_two_curves_of_one_figure_look_alike(kinds: tuple[str, ...]) -> None:
    looks = {(STYLES[kind].color, STYLES[kind].line) for kind in kinds}
    assert len(looks) == len(kinds) == 16


def test_points_outside_the_axes_have_no_marker(typical: ExperimentResult) -> None:
    assert plot_of(typical).outside
    assert _markers(plot_of(typical)) == {"units": 3, "connections": 5, "small": 3}


def test_the_same_plot_gives_the_same_svg(typical: ExperimentResult) -> None:
    first = svg(plot_of(typical))
    assert first == svg(plot_of(typical))
    assert b"<dc:date>" not in first


def test_the_baseline_is_drawn_where_there_is_one(point: Make, result_of: MakeResult) -> None:
    curve = [point("connections", 250_000, 9_500, alpha=1.5)]
    with_one = result_of([point("baseline", 0, 9_800), *curve])
    assert b'id="baseline"' in svg(plot_of(with_one))
    assert b'id="baseline"' not in svg(plot_of(result_of(curve)))


def test_the_png_is_twice_800_pixels_wide_and_light(typical: ExperimentResult) -> None:
    picture = cv2.imdecode(np.frombuffer(png(plot_of(typical)), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (1120, 1600, 3)
    assert np.median(picture) == 255
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_sample_is_said_in_the_figure(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    # glyphs are drawn as paths; matplotlib writes their text beside them as a comment
    assert b"SAMPLE DATA, NOT THE REAL DATA SET" in svg(plot_of(sample))
    assert b"SAMPLE DATA" not in svg(plot_of(typical))


@pytest.mark.parametrize("title", ["$\\frac{$", "<script>&amp;--></svg>", "a $x$ b"])
def test_a_strange_title_is_text_and_nothing_else(
    point: Make, result_of: MakeResult, title: str
) -> None:
    points = [point("units", 250_000, correct, units={title: 3}) for correct in (9_500, 8_000)]
    result = result_of(points, title=title)
    assert plot_of(result).outside  # so that the caption has the name too
    root = ET.fromstring(svg(plot_of(result)))  # noqa: S314  (we have just made it)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert png(plot_of(result)).startswith(b"\x89PNG")
