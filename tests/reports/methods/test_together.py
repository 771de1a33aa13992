"""Results of one net on one figure, beside what authors report."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.figures import numbered_style
from pycaffe_prune.reports.methods.groups import of_one_net
from pycaffe_prune.reports.methods.published import published
from pycaffe_prune.reports.outputs.write import write_reports

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
WHOLE = 266_200
SOLVER = {"solver": "solvers/lenet_300_100.prototxt"}


def _sized(point: Point, left: int) -> Point:
    net = NetSize(
        parameters=WHOLE,
        weights=WHOLE,
        non_zero_weights=left,
        macs=None,
        non_zero_macs=None,
        stored_bytes={"caffemodel": 4 * WHOLE, "sparse": 5 * left},
        units={},
    )
    return point.model_copy(update={"sizes": ModelSizes(whole=net, alive=net)})


@pytest.fixture
def run(point: Make, result_of: MakeResult) -> Callable[..., ExperimentResult]:
    def made(preset: str = "full", **fields: object) -> ExperimentResult:
        points = [
            _sized(point("baseline", 0, 9_800), WHOLE),
            _sized(point("connections", 240_000, 9_790, alpha=1.0), 20_000),
        ]
        return result_of(points, **{"settings": SOLVER, "preset": preset, **fields})

    return made


def test_results_of_one_net_and_one_test_set_are_together(
    run: Callable[..., ExperimentResult], typical: ExperimentResult
) -> None:
    one, two, other = run("full"), run("quick"), run(settings={"solver": "other.prototxt"})
    narrow = run(settings={**SOLVER, "net": {"units": {"ip1": 30}}})
    elsewhere = run(data=one.data.model_copy(update={"test_sha256": "c" * 64}))
    every = [one, typical, other, narrow, elsewhere, two]
    assert [[id(result) for result in group] for group in of_one_net(every)] == [[id(one), id(two)]]


def test_authors_points_stand_beside_the_same_net_on_mnist_alone(
    run: Callable[..., ExperimentResult], sample: ExperimentResult
) -> None:
    known = published(run())
    assert [one.stored for one in known] == [None, None, 27_000]
    assert published(run(settings={"solver": "solvers/lenet.prototxt"}))[2].stored == 44_000
    strangers = (
        run(settings={}),
        run(settings={"solver": 3}),
        run(settings={**SOLVER, "net": {"units": {"ip1": 30}}}),
        run(data=sample.data),
    )
    assert [list(published(result)) for result in strangers] == [[]] * len(strangers)


def test_no_two_curves_look_alike() -> None:
    styles = [(style.color, style.marker) for style in map(numbered_style, range(56))]
    assert len(set(styles)) == len(styles)


def test_a_report_of_two_such_results_has_their_figure(
    run: Callable[..., ExperimentResult], tmp_path: Path
) -> None:
    write_reports([run("full"), run("quick")], tmp_path)
    svg = (tmp_path / "together-1.svg").read_bytes()
    assert [svg.count(mark) for mark in (b'"curve-1"', b'"curve-2"', b'"curve-3"')] == [1, 1, 0]
    assert b'"published-3"' in svg
    assert b'"published-1"' not in svg  # who tells no bytes has no place
    assert (tmp_path / "together-1.png").read_bytes().startswith(b"\x89PNG")
    assert "](together-1.png)" in (tmp_path / "report.md").read_text("utf-8")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "LeNet-300-100: the methods of all these runs against bytes" in page
    methods = (tmp_path / "methods-1.svg").read_bytes()
    assert methods.count(b'"published-1"') == 1
    assert methods.count(b'"published-3"') == 2
