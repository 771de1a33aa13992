import re
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.outputs.markdown import markdown
from pycaffe_prune.reports.paper.judge import judge
from pycaffe_prune.reports.rows import rows
from pycaffe_prune.reports.tables import (
    claims_grid,
    points_grid,
    presets_grid,
    rounds_grid,
    sizes_grid,
    table_1_grid,
    weights_grid,
)

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
Results = st.SearchStrategy[ExperimentResult]


def _cells(text: str) -> list[tuple[str, ...]]:
    """The cells of every Markdown table line."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


@given(data=st.data())
def test_every_point_stands_in_the_markdown(any_result: Results, data: st.DataObject) -> None:
    result = data.draw(any_result)
    found = Counter(
        (cells[0], cells[1], cells[2]) for cells in _cells(markdown([result], ["figure.png"], []))
    )
    for row in rows(result):
        key = (row.name, row.parameter, f"{row.reduction:.2f}")
        assert found[key] > 0
        found[key] -= 1


@given(data=st.data())
def test_every_line_of_a_table_has_as_many_cells_as_its_head(
    any_result: Results, data: st.DataObject
) -> None:
    result = data.draw(any_result)
    grids = (points_grid(result), rounds_grid(result), claims_grid(judge(result)))
    for grid in (*grids, sizes_grid(result), weights_grid(result), table_1_grid()):
        assert {len(line) for line in grid.lines} <= {len(grid.heads)}


def test_every_round_is_listed(typical: ExperimentResult) -> None:
    assert len(rounds_grid(typical).lines) == sum(len(point.rounds) for point in typical.points)


def test_claims_stand_with_verdict_numbers_and_rule(typical: ExperimentResult) -> None:
    cells = _cells(markdown([typical], ["figure.png"], []))
    for entry in judge(typical):
        line = next(line for line in cells if line[0] == entry.claim.text)
        assert line[1:] == (entry.verdict, entry.claim.paper, entry.ours, entry.rule)


def test_a_sample_is_loud_in_the_markdown(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    assert "**⚠ SAMPLE DATA, NOT THE REAL DATA SET" in markdown([sample], ["figure.png"], [])
    assert "SAMPLE DATA" not in markdown([typical], ["figure.png"], [])


def test_names_cannot_break_out_of_the_markdown(point: Make, result_of: MakeResult) -> None:
    hostile = "a|b\n# c <img src=x> `d` [e](f) *g*"
    result = result_of([point("units", 250_000, 9_500, units={hostile: 3})], title=hostile)
    text = markdown([result], ["figure.png"], [])
    assert "<img" not in text
    assert "\n# c" not in text
    assert "[e](" not in text
    line = next(cells for cells in _cells(text) if cells[0] == "unit pruning")
    assert len(line) == len(points_grid(result).heads)


def test_presets_of_one_experiment_stand_side_by_side(
    typical: ExperimentResult, result_of: MakeResult
) -> None:
    other = result_of(typical.points, preset="other", settings={"reading": "Another reading."})
    assert presets_grid([typical, result_of([], experiment="lenet-5")]).lines == ()
    first, second = presets_grid([typical, other]).lines
    assert second[:2] == ("LeNet-300-100, other", "Another reading.")
    assert first[2:] == second[2:] == ("97.90", "0.9", "80.02", "97.48", "3 of 5")


def test_every_network_of_table_1_is_counted_beside_the_papers_figure() -> None:
    lines = {line[0]: line[2:] for line in table_1_grid().lines}
    assert len(lines) == 11
    assert lines["GoogLeNet"] == ("13,000,000", "13,378,280", "1.03")
    assert lines["NeuralTalk"] == ("6,800,000", "6,799,339", "1.00")
    assert lines["DeepSpeech"] == ("8,000,000", "8,139,805", "1.02")
    assert lines["DeepSpeech-2"] == ("67,000,000", "67,740,758", "1.01")
