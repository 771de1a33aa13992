"""What shrinking is worth at equal accuracy."""

import json
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from pycaffe_prune.experiments.result import ExperimentResult, Point, Speed
from pycaffe_prune.pruning.energy import image_energy
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.methods.worth import LOSSES, worth, worth_grid
from pycaffe_prune.reports.outputs.html import render_html
from pycaffe_prune.reports.outputs.markdown import markdown
from pycaffe_prune.reports.outputs.summary import report_json
from pycaffe_prune.reports.outputs.terminal import terminal

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
WHOLE = 100_000


def _net(parameters: int, left: int, *, counted: bool = True) -> NetSize:
    return NetSize(
        parameters=parameters,
        weights=parameters,
        non_zero_weights=left,
        macs=2 * parameters if counted else None,
        non_zero_macs=2 * left if counted else None,
        stored_bytes={"caffemodel": 4 * parameters, "compressed": left},
        units={},
    )


def _sized(point: Point, left: int, *, counted: bool = True) -> Point:
    whole = _net(WHOLE, left, counted=counted)
    alive = _net(WHOLE // 2 if left < WHOLE else WHOLE, left, counted=counted)
    return point.model_copy(update={"sizes": ModelSizes(whole=whole, alive=alive)})


def _raced(make: Make, result_of: MakeResult, *, counted: bool = True) -> ExperimentResult:
    units = {"ip1": 30}
    made = [
        (make("baseline", 0, 9_900), WHOLE),
        (make("connections", 240_000, 9_895, alpha=1.0), 20_000),
        (
            make("connections", 250_000, 9_890, alpha=1.2),
            9_000,
        ),  # 0.1 points, neither more nor less
        (make("connections", 260_000, 9_860, alpha=2.0), 1_500),
        (make("units", 240_000, 9_860, units=units), 1_000),
        (make("small", 240_000, 9_000, units=units), 500),
    ]
    return result_of([_sized(point, left, counted=counted) for point, left in made])


@pytest.fixture
def raced(point: Make, result_of: MakeResult) -> ExperimentResult:
    return _raced(point, result_of)


def test_each_method_enters_with_its_smallest_net_that_keeps_to_the_loss(
    raced: ExperimentResult,
) -> None:
    found = [(row.loss, row.method, row.setting) for row in worth(raced)]
    assert found == [
        (0.0, "unpruned", ""),
        (0.1, "connection pruning", "α = 1.2"),
        (0.5, "unit pruning", "ip1 30"),
        (0.5, "connection pruning", "α = 2"),
        (1.0, "unit pruning", "ip1 30"),
        (1.0, "connection pruning", "α = 2"),
    ]
    assert {row.loss for row in worth(raced)} == {0.0, *LOSSES}


def test_caffe_multiplies_zeros_and_reads_float32_of_what_is_alive(
    raced: ExperimentResult,
) -> None:
    row = worth(raced)[1]
    assert (row.stored, row.smaller) == (9_000, pytest.approx(4 * WHOLE / 9_000))
    assert (row.caffe_macs, row.macs) == (WHOLE, 18_000)
    dense = image_energy(4 * WHOLE // 2, WHOLE).total / 1e6
    assert row.caffe_energy == pytest.approx(dense)
    assert row.energy == pytest.approx(image_energy(9_000, 18_000).total / 1e6)


def test_what_is_not_known_is_left_open(
    point: Make, result_of: MakeResult, typical: ExperimentResult
) -> None:
    lines = worth_grid(_raced(point, result_of, counted=False)).lines
    assert {line[5:11] for line in lines} == {("–",) * 6}
    assert worth(typical) == ()
    assert worth_grid(typical).lines == ()


def test_times_are_those_of_the_nets_that_were_measured(raced: ExperimentResult) -> None:
    speed = Speed(one=0.5, each=0.25, batch=64, cpu="A CPU")
    points = [
        one.model_copy(update={"speed": speed}) if one.alpha == 1.2 else one for one in raced.points
    ]
    rows = worth(raced.model_copy(update={"points": tuple(points)}))
    assert [row.milliseconds for row in rows] == [None, 0.5, None, None, None, None]
    assert rows[1].milliseconds_each == 0.25


def test_every_output_has_it(raced: ExperimentResult, typical: ExperimentResult) -> None:
    title = "What it is worth at equal accuracy"
    pages = [markdown([one], ["f.png"], [], ["m.png"]) for one in (raced, typical)]
    assert [title in page for page in pages] == [True, False]
    assert [title in render_html([one]) for one in (raced, typical)] == [True, False]
    (told,) = json.loads(report_json([raced]))["results"]
    assert [row["stored"] for row in told["worth_at_equal_accuracy"]][:2] == [WHOLE, 9_000]
    console = Console(file=StringIO(), width=80, color_system=None)
    console.print(terminal(raced))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert title in text
    assert max(map(len, text.splitlines())) <= 80
