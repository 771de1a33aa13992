import json
from collections.abc import Callable
from pathlib import Path

import pytest
from markupsafe import escape
from rich.console import Console

from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.reports.figures import draw
from pycaffe_prune.reports.outputs.html import command
from pycaffe_prune.reports.outputs.write import print_summary, write_report, write_reports
from pycaffe_prune.reports.plot import plot_of, preset_plots
from pycaffe_prune.reports.tables import points_grid, presets_grid

TEXTS = ["report.html", "report.json", "report.md"]
FILES = ["figure.png", "figure.svg", "paper-5.png", "paper-5.svg", *TEXTS]


def test_the_files_are_written_and_nothing_else(typical: ExperimentResult, tmp_path: Path) -> None:
    page = write_report(typical, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert sorted(path.name for path in page.parent.iterdir()) == FILES
    assert all((page.parent / name).stat().st_size > 1_000 for name in FILES)
    assert "figure.png" in (page.parent / "report.md").read_text("utf-8")


def test_the_same_result_gives_the_same_report(typical: ExperimentResult, tmp_path: Path) -> None:
    first = write_report(typical, tmp_path / "a").parent
    second = write_report(typical, tmp_path / "b").parent
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_folder_that_cannot_be_made_is_one_sentence(
    typical: ExperimentResult, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PruneError, match="file"):
        write_report(typical, tmp_path / "file" / "report")


def test_a_report_that_cannot_be_made_leaves_the_old_one(
    typical: ExperimentResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write_report(typical, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> str:
        raise PruneError("no")

    monkeypatch.setattr("pycaffe_prune.reports.outputs.write.render_html", fail)
    changed = typical.model_copy(update={"title": "another"})
    with pytest.raises(PruneError, match="no"):
        write_report(changed, tmp_path)
    assert {path: path.read_bytes() for path in page.parent.iterdir()} == before


def test_several_results_share_one_page_and_have_a_figure_each(
    typical: ExperimentResult, sample: ExperimentResult, tmp_path: Path
) -> None:
    page = write_reports([typical, sample], tmp_path)
    pictures = [f"figure-{number}.{kind}" for number in (1, 2) for kind in ("png", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*pictures, *FILES[2:]]
    assert page.read_text("utf-8").count('<section class="result"') == 2
    assert all(name in (tmp_path / "report.md").read_text("utf-8") for name in pictures[::2])


def test_presets_that_differ_are_drawn_together(typical: ExperimentResult, tmp_path: Path) -> None:
    fewer = [point for point in typical.points if point.alpha != 1.2]
    other = typical.model_copy(update={"preset": "fewer", "points": tuple(fewer)})
    page = write_reports([typical, other], tmp_path).read_text("utf-8")
    assert (tmp_path / "presets-1.png").read_bytes().startswith(b"\x89PNG")
    assert b'id="line-preset-2"' in (tmp_path / "presets-1.svg").read_bytes()
    text = (tmp_path / "report.md").read_text("utf-8")
    order = [text.index(f"]({name}.png)") for name in ("paper-5", "readings-1", "presets-1")]
    assert order == sorted(order)
    parts = ('class="opening"', 'id="readings-1"', 'id="presets"', 'class="result"')
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert page.count('<svg class="chart papers"') == 1
    told = json.loads((tmp_path / "report.json").read_text("utf-8"))["readings"]
    assert [(row["preset"], row["place"]) for row in told] == [("quick", 1), ("fewer", 2)]
    assert "connection pruning by preset" in page
    assert page.count('class="point preset-1') == page.count('class="point preset-2') + 1
    assert not (tmp_path / "presets-2.png").exists()  # the other methods are the same


def test_the_judged_layer_is_named_in_every_table_and_figure(
    point: Callable[..., Point], result_of: Callable[..., ExperimentResult], tmp_path: Path
) -> None:
    name = "loss3/top-1 $x$ <b>"
    points = [
        point("baseline", 0, 9_000, accuracy_name=name),
        point("connections", 200_000, 8_900, alpha=1.0, accuracy_name=name),
    ]
    settings = {"solver": "solvers/lenet_300_100.prototxt", "accuracy": name}
    other = [points[0], point("connections", 1, 2, alpha=1.0)]
    results = [
        result_of(points, preset="quick", settings=settings),
        result_of(other, preset="other", settings=settings),
    ]
    write_reports(results, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    shown = escape(f"Accuracy in '{name}' (%)")
    assert page.count(shown) == page.count('<svg class="chart"') > 2
    assert all(
        escape(f"{title}, accuracy in '{name}'") in page
        for title in ("Every point", "Accuracy and size of every network", "of every point")
    )
    assert "--accuracy" in command(results[0])
    assert points_grid(results[0]).lines[0][-2] == name
    assert presets_grid(results).lines[0][-1] == name
    text = (tmp_path / "report.md").read_text("utf-8")
    assert text.count("test images, accuracy in") == text.count("FC weights, accuracy in") == 2
    told = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [one["accuracy_name"] for one in told["results"]] == [name, name]
    for plot in (*map(plot_of, results), *preset_plots(results)):
        (axes,) = draw(plot).axes
        assert axes.get_ylabel() == f"Accuracy in '{name}' (%)"
    console = Console(width=300)
    with console.capture() as capture:
        print_summary(results[0], console)
    assert f"accuracy in '{name}' around the last round's training" in " ".join(
        capture.get().split()
    )


def test_results_from_before_it_was_named_name_no_layer(
    typical: ExperimentResult, tmp_path: Path
) -> None:
    folder = write_report(typical, tmp_path).parent
    assert ">Accuracy (%)<" in (folder / "report.html").read_text("utf-8")
    for name in TEXTS:
        assert "accuracy in" not in (folder / name).read_text("utf-8").lower()
