from collections.abc import Callable
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.outputs.terminal import terminal
from pycaffe_prune.reports.paper.judge import judge
from pycaffe_prune.reports.rows import rows

MakeResult = Callable[..., ExperimentResult]


def _shown(result: ExperimentResult, width: int = 240) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(terminal(result))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@given(data=st.data())
def test_every_point_is_shown_with_its_values(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    lines = _shown(result).splitlines()
    for row in rows(result):
        wanted = (row.parameter, f"{row.reduction:.2f}", f"{row.before:.2f}", f"{row.after:.2f}")
        assert any(
            line.startswith(row.method) and all(text in line for text in wanted) for line in lines
        )


def test_verdicts_stand_beside_the_paper(typical: ExperimentResult) -> None:
    text = _shown(typical)
    assert "Ours beside the paper" in text
    for entry in judge(typical):
        assert f" {entry.verdict} " in text


def test_a_sample_is_loud_first_and_last(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    lines = _shown(sample).splitlines()
    assert "SAMPLE DATA, NOT THE REAL DATA SET" in lines[1]
    assert "SAMPLE DATA, NOT THE REAL DATA SET" in lines[-2]
    assert "SAMPLE DATA" not in _shown(typical)


def test_nothing_is_wider_than_80_columns_or_cut_off(typical: ExperimentResult) -> None:
    text = _shown(typical, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in rows(typical):
        assert f"{row.reduction:.2f}" in text


def test_names_are_no_markup(point: Callable[..., Point], result_of: MakeResult) -> None:
    result = result_of([point("baseline", 0, 9_800)], title="[bold]x[/nonsense]")
    assert "[bold]x[/nonsense]" in _shown(result)
