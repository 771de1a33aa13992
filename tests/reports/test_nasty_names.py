"""Reports of results with strangers' names in every place: each is seen, and none acts."""

import html
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.outputs.write import print_summary, write_reports
from pycaffe_prune.screen import Screen
from tests.nasty import NASTY, assert_nothing_hidden

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]


@pytest.fixture
def nasty(point: Make, result_of: MakeResult) -> ExperimentResult:
    """A result all of whose strings are strange, over its points."""
    every = " ".join(NASTY)
    points = [
        point("baseline", 0, 9_800),
        *(point("units", 250_000, 9_500 - at, units={name: 3}) for at, name in enumerate(NASTY)),
    ]
    return result_of(
        points, title=every, preset=every, engine=every, versions=dict.fromkeys(NASTY, every)
    )


def test_every_name_is_seen_in_the_terminal(
    nasty: ExperimentResult, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(nasty, Screen(width=2_000))
    text = capsys.readouterr().out
    assert_nothing_hidden(text)
    assert [name for name, seen in NASTY.items() if seen not in text] == []


def test_every_name_is_seen_in_every_file(nasty: ExperimentResult, tmp_path: Path) -> None:
    write_reports([nasty], tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert_nothing_hidden(page.partition('<script type="application/json"')[0])
    assert [name for name, seen in NASTY.items() if html.escape(seen) not in page] == []
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert_nothing_hidden(markdown)
    for raw in ("</script>", "[/ip]", "`a|b`", "$\\frac", "\\$\\frac"):
        assert raw not in markdown
    data = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert_nothing_hidden(data)
    assert json.loads(data)["results"][0]["preset"] == " ".join(NASTY)
    ET.parse(tmp_path / "figure.svg")  # noqa: S314  (we have just made it)
