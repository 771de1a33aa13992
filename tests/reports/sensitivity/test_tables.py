import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from pycaffe_prune.experiments.sensitivity.result import SensitivityResult, read_sensitivity
from pycaffe_prune.reports.sensitivity.figure import draw, png, svg
from pycaffe_prune.reports.sensitivity.tables import print_sensitivity, sample_note
from pycaffe_prune.reports.sensitivity.write import write_figures
from pycaffe_prune.share import share_root

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {"conv1": 500, "ip1": 400_000, "fire2/squeeze1x1 [b]$_x$": 5_000}
RATES = (0.25, 0.5, 0.9)
CORRECT = {"conv1": (9_900, 9_000, 980), "ip1": (9_914, 9_910, 9_000)}

Make = Callable[..., SensitivityResult]


@pytest.fixture
def make() -> Make:
    """A result in which the third layer is not measured yet."""

    def score(correct: int) -> dict[str, object]:
        share = correct / 10_000
        return {
            "accuracy": share,
            "correct": correct,
            "images": 10_000,
            "loss": 0.1,
            "finite": True,
        }

    def result(**changed: object) -> SensitivityResult:
        points = [
            {
                "layer": layer,
                "rate": rate,
                "kept": SIZES[layer] - round(rate * SIZES[layer]),
                "alpha": 1.5,
                "score": score(correct),
            }
            for layer, found in CORRECT.items()
            for rate, correct in zip(RATES, found, strict=True)
        ]

        def measured(alphas: tuple[float, ...], kept: tuple[int, ...], correct: int) -> object:
            layers = [
                {"layer": name, "weights": size, "alpha": alpha, "kept": left}
                for (name, size), alpha, left in zip(SIZES.items(), alphas, kept, strict=True)
            ]
            return {"layers": layers, "score": score(correct)}

        content = {
            "title": "LeNet",
            "data": "mnist",
            "is_sample": False,
            "engine": "caffe",
            "versions": {},
            "machine": {"cpu": "x", "cores": 2, "system": "y"},
            "settings": {
                "net_sha256": "0" * 64,
                "weights_sha256": "1" * 64,
                "method": "connections",
                "criterion": None,
                "layers": [
                    {"layer": name, "type": "InnerProduct", "size": size}
                    for name, size in SIZES.items()
                ],
                "rates": RATES,
                "images": 10_000,
            },
            "baseline": score(9_914),
            "points": points,
            "suggestion": {
                "total": 0.9,
                "predicted_drop": 0.0123,
                "suggested": measured((0, 1.7144, 0.5), (500, 38_000, 2_050), 9_865),
                "single": measured((1.5, 1.5, 1.5), (50, 40_000, 500), 6_741),
            },
        }
        return SensitivityResult.model_validate(content | changed)

    return result


def printed(result: SensitivityResult) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        print_sensitivity(result, console)
    return capture.get()


def cells(text: str, first: str) -> list[list[str]]:
    """The cells after the layer's name, of each line that begins with it."""
    return [
        line.strip().removeprefix(first).split()
        for line in text.splitlines()
        if line.strip().startswith(first)
    ]


def test_the_table_has_a_line_for_each_layer_and_a_cell_for_each_rate(make: Make) -> None:
    text = printed(make())
    assert cells(text, "layer")[0] == ["weights", "25", "50", "90"]
    assert cells(text, "conv1 ")[0] == ["500", "99.00", "90.00", "9.80"]
    assert cells(text, "ip1 ")[0] == ["400,000", "99.14", "99.10", "90.00"]
    assert cells(text, "fire2/squeeze1x1 [b]$_x$")[0] == ["5,000", "–", "–", "–"]
    assert "99.14 % with none pruned" in text
    assert "SAMPLE" not in text


def test_the_suggestion_stands_beside_one_alpha_with_what_both_cost(make: Make) -> None:
    text = printed(make())
    assert cells(text, "conv1 ")[1] == ["500", "0", "0.00", "1.5", "90.00"]
    assert cells(text, "ip1 ")[1] == ["400,000", "1.7144", "90.50", "1.5", "90.00"]
    whole = [f"{100 * (1 - kept / 405_500):.2f}" for kept in (40_550, 40_550)]
    assert cells(text, "all ") == [["405,500", *whole]]
    assert cells(text, "accuracy %") == [["98.65", "67.41"]]
    assert "1.23 points" in text
    without = printed(make(suggestion=None))
    assert "accuracy %" not in without.replace("accuracy % with one layer", "")


def test_rates_for_a_budget_stand_beside_one_rate_with_what_both_leave(make: Make) -> None:
    def net(kept: tuple[int, ...], amount: int, correct: int) -> dict[str, object]:
        whole = make().baseline.model_dump()
        rows = [
            {"layer": name, "size": size, "kept": left, "rate": 1 - left / size}
            for (name, size), left in zip(SIZES.items(), kept, strict=True)
        ]
        return {"layers": rows, "amount": amount, "score": {**whole, "correct": correct}}

    suggestion = {
        "quantity": "macs",
        "budget": 229_300,
        "whole": 2_293_000,
        "predicted_drop": 0.0123,
        "suggested": net((500, 38_000, 2_050), 229_123, 9_865),
        "single": net((50, 40_000, 500), 229_299, 6_741),
    }
    text = printed(make(budget_suggestion=suggestion, suggestion=None))
    assert "at most 229,300 MACs (10 % of 2,293,000)" in text
    assert cells(text, "conv1 ")[1] == ["500", "0.00", "500", "90.00", "50"]
    assert cells(text, "ip1 ")[1] == ["400,000", "90.50", "38,000", "90.00", "40,000"]
    assert cells(text, "MACs") == [["229,123", "229,299"]]
    assert cells(text, "accuracy %") == [["98.65", "67.41"]]
    assert "1.23 points" in text


def test_the_judged_layer_is_named_in_the_tables_and_at_both_axes(make: Make) -> None:
    name = "loss3/top-1 $x$ [b]"
    unnamed = make()
    named = unnamed.named(name)
    text = " ".join(printed(named).split())
    assert f"LeNet: accuracy % in '{name}' with one layer pruned" in text
    assert "accuracy % in" not in printed(unnamed)
    assert {axes.get_ylabel() for axes in draw(named).axes} == {f"Accuracy in '{name}' (%)"}
    assert {axes.get_ylabel() for axes in draw(unnamed).axes} == {"Accuracy (%)"}


def test_units_are_called_units(make: Make) -> None:
    settings = make().settings.model_dump() | {"method": "units", "criterion": "onorm"}
    text = printed(make(settings=settings, suggestion=None))
    assert cells(text, "layer")[0] == ["units", "25", "50", "90"]
    assert "weights" not in text


def test_sample_data_is_shouted_about_everywhere(make: Make) -> None:
    sample = make(is_sample=True, data="digits")
    note = sample_note(sample)
    assert note is not None
    assert "SAMPLE DATA" in note
    assert printed(sample).count("SAMPLE DATA, NOT THE REAL DATA SET") == 2
    figure = draw(sample)
    assert figure.get_suptitle().startswith("SAMPLE DATA")
    assert draw(make()).get_suptitle() == ""


def test_each_layer_is_a_curve_from_the_baseline_in_both_panels(make: Make) -> None:
    figure = draw(make())
    assert len(figure.axes) == 2
    for axes in figure.axes:
        curves = {line.get_label(): line for line in axes.lines}
        assert next(iter(curves)) == "baseline (99.14 %)"
        assert len(curves) == 1 + len(SIZES)
        assert list(curves["conv1"].get_xdata()) == pytest.approx([0, 25, 50, 90])
        assert list(curves["conv1"].get_ydata()) == pytest.approx([99.14, 99.0, 90.0, 9.8])
    whole, near = (axes.get_ylim() for axes in figure.axes)
    assert whole[0] <= 9.8 < 99.14 <= whole[1]
    assert 90 < near[0] <= 94.14 < 99.14 <= near[1]


def test_many_layers_can_be_told_apart(make: Make) -> None:
    settings = make().settings.model_dump()
    settings["layers"] = [{"layer": f"l{n}", "type": "Convolution", "size": 9} for n in range(26)]
    figure = draw(make(settings=settings, points=(), suggestion=None))
    lines = figure.axes[0].lines[1:]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 26


def test_the_same_result_gives_the_same_svg_and_both_files(make: Make, tmp_path: Path) -> None:
    result = make()
    first = svg(result)
    assert first == svg(result)
    ET.fromstring(first)  # noqa: S314  (we have just made it)
    write_figures(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sensitivity.png", "sensitivity.svg"}
    assert (tmp_path / "sensitivity.svg").read_bytes() == first
    picture = cv2.imdecode(np.frombuffer(png(result), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] == 2200
    assert np.median(picture) == 255


def test_the_kept_analysis_is_readable_and_its_figure_is_its_own() -> None:
    folder = share_root() / "results" / "sensitivity-lenet"
    if not folder.is_dir():
        pytest.skip("results/ is in the checkout only")
    result = read_sensitivity(folder / "sensitivity.json")
    assert len(result.points) == len(result.settings.layers) * len(result.settings.rates)
    assert result.suggestion is not None
    assert result.suggestion.suggested.score.correct > result.suggestion.single.score.correct
