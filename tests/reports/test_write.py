from pathlib import Path

import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.write import write_report, write_reports

FILES = ["figure.png", "figure.svg", "report.html", "report.json", "report.md"]


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

    def fail(_: object) -> str:
        raise PruneError("no")

    monkeypatch.setattr("pycaffe_prune.reports.write.render_html", fail)
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
    assert "presets-1.png" in (tmp_path / "report.md").read_text("utf-8")
    assert "connection pruning by preset" in page
    assert page.count('class="point preset-1') == page.count('class="point preset-2') + 1
    assert not (tmp_path / "presets-2.png").exists()  # the other methods are the same
