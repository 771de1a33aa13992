"""All methods against what is left of the net."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.pruning.sizes import ModelSizes, NetSize
from pycaffe_prune.reports.methods.curves import method_curves, smallest_bytes, unpruned
from pycaffe_prune.reports.methods.tables import methods_grid
from pycaffe_prune.reports.outputs.write import write_report

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
WHOLE = 266_200


def _sizes(left: int) -> ModelSizes:
    def net(parameters: int) -> NetSize:
        return NetSize(
            parameters=parameters,
            weights=parameters,
            non_zero_weights=left,
            macs=None,
            non_zero_macs=None,
            stored_bytes={"caffemodel": 4 * parameters, "sparse": 5 * left},
            units={},
        )

    return ModelSizes(whole=net(WHOLE), alive=net(max(left, WHOLE // 2)))


@pytest.fixture
def over_seeds(point: Make, result_of: MakeResult) -> ExperimentResult:
    """Three seeds of two alphas, and of the baseline."""
    points = [
        point("baseline", 0, 9_800 + seed, seed=seed).model_copy(update={"sizes": _sizes(WHOLE)})
        for seed in (1, 2, 3)
    ]
    points += [
        point("connections", WHOLE - left, right + 10 * seed, alpha=alpha, seed=seed).model_copy(
            update={"sizes": _sizes(left)}
        )
        for alpha, left, right in ((1.0, 20_000, 9_790), (2.0, 2_000, 9_500))
        for seed in (1, 2, 3)
    ]
    return result_of(points)


def test_a_setting_is_one_point_with_the_mean_and_the_spread_of_its_seeds(
    over_seeds: ExperimentResult,
) -> None:
    (curve,) = method_curves(over_seeds)
    assert [(point.setting, point.seeds) for point in curve.points] == [("α = 1", 3), ("α = 2", 3)]
    first = curve.points[0]
    assert (first.lowest, first.accuracy, first.highest) == pytest.approx((98.0, 98.1, 98.2))
    assert first.kept == pytest.approx(100 * 20_000 / WHOLE)
    assert first.stored == 5 * 20_000
    assert first.alive == pytest.approx(50)
    whole = unpruned(over_seeds)
    assert whole is not None
    assert (whole.kept, whole.alive, whole.smaller) == (100, 100, 1)


@given(left=st.integers(1, WHOLE))
def test_the_smallest_form_is_no_larger_than_any(left: int) -> None:
    sizes = _sizes(left)
    forms = [*sizes.whole.stored_bytes.values()]
    found = smallest_bytes(sizes, sizes.whole.stored_bytes)
    assert found in [*forms, *(sizes.alive or sizes.whole).stored_bytes.values()]
    assert found <= min(forms)


def test_a_form_counts_where_all_nets_of_a_result_were_measured_in_it(
    over_seeds: ExperimentResult,
) -> None:
    def with_coded(points: int) -> ExperimentResult:
        changed = []
        for place, point in enumerate(over_seeds.points):
            sizes = point.sizes
            if sizes is not None and place < points:
                both = [
                    net and net.model_copy(update={"stored_bytes": net.stored_bytes | {"coded": 7}})
                    for net in (sizes.whole, sizes.alive)
                ]
                sizes = sizes.model_copy(update={"whole": both[0], "alive": both[1]})
            changed.append(point.model_copy(update={"sizes": sizes}))
        return over_seeds.model_copy(update={"points": changed})

    whole = len(over_seeds.points)
    for points, stored in ((whole, 7), (whole - 1, 5 * 20_000)):
        (curve,) = method_curves(with_coded(points))
        assert curve.points[0].stored == stored


def test_a_result_with_a_net_that_was_not_measured_has_no_curves(
    over_seeds: ExperimentResult, typical: ExperimentResult
) -> None:
    assert method_curves(typical) == ()
    assert methods_grid(typical).lines == ()
    bare = over_seeds.points[-1].model_copy(update={"sizes": None})
    changed = over_seeds.model_copy(update={"points": (*over_seeds.points[:-1], bare)})
    assert method_curves(changed) == ()


def test_the_report_shows_all_methods_and_the_same_result_gives_the_same_figure(
    over_seeds: ExperimentResult, typical: ExperimentResult, tmp_path: Path
) -> None:
    write_report(over_seeds, tmp_path / "a")
    write_report(over_seeds, tmp_path / "b")
    svg = (tmp_path / "a" / "methods.svg").read_bytes()
    assert svg == (tmp_path / "b" / "methods.svg").read_bytes()
    assert b"method-connections" in svg
    for name, mark in (("report.md", "### Who wins"), ("report.html", "<h4>Who wins</h4>")):
        assert mark in (tmp_path / "a" / name).read_text()
    for name, mark in (("report.md", "](methods.png)"), ("report.html", 'class="methods"')):
        text = (tmp_path / "a" / name).read_text()
        assert mark in text
        assert "98.00 to 98.20" in text
    write_report(typical, tmp_path / "c")
    assert not (tmp_path / "c" / "methods.svg").exists()
