"""Which reading fits best: the order, and what has no place in it."""

from itertools import permutations

import pytest

from pycaffe_prune.reports.readings.figure import draw
from pycaffe_prune.reports.readings.fit import reading_of, readings
from pycaffe_prune.reports.readings.tables import (
    fit_grid,
    readings_grid,
    sets_grid,
    signs_grid,
)

SHAPE = {"ip1": 60, "ip2": 10}


@pytest.fixture(scope="module")
def made(point, result_of):
    """A LeNet-300-100 whose alpha 0.6 ends at this reduction, from a baseline of this accuracy."""

    def make(preset, rate, baseline, seeds=(1,), experiment="lenet-300-100", **fields):
        points = [point("baseline", 0, baseline, seed=seed) for seed in seeds]
        for seed in seeds:
            points += [
                point("connections", round(2_662 * rate), baseline + seed, alpha=0.6, seed=seed),
                point("connections", 260_000, 9_700, alpha=1.8, seed=seed),
                point("units", 218_460, 9_600, units=SHAPE, seed=seed),
            ]
        points.append(point("small", 218_460, 9_650, units=SHAPE))
        return result_of(points, preset=preset, experiment=experiment, **fields)

    return make


def test_more_signs_come_first_and_of_as_many_the_one_less_far_off(made):
    results = [made("far", 87, 9_830), made("near", 80.5, 9_830), made("nearer", 80.1, 9_830)]
    for order in permutations(results):
        (group,) = readings(order)
        assert [row.preset for row in group] == ["nearer", "near", "far"]
        assert [row.place for row in group] == [1, 2, 3]
    best, _, worst = group
    assert best.met > worst.met
    assert best.distance < worst.distance


def test_readings_are_of_one_lenet_and_of_several_results(made):
    one = made("one", 80, 9_800)
    assert readings([one]) == []
    assert readings([one, made("other", 80, 9_800, is_sample=True)]) == []
    other = made("paper", 80, 9_800, experiment="transfer_squeezenet_oxford102")
    assert readings([one, other, other]) == []
    assert len(readings([one, made("two", 80, 9_800)])) == 1


def test_several_pruning_seeds_are_a_band(made):
    found = reading_of(made("each3", 80, 9_800, seeds=(1, 2, 3)))
    assert found.seeds == 3
    assert (found.first.seeds, found.first.lowest, found.first.highest) == (3, 98.01, 98.03)
    assert found.first.accuracy == pytest.approx(98.02)


def test_tables_and_figure_have_every_reading_best_first(made):
    results = [made("far", 87, 9_830), made("each", 80, 9_830, seeds=(1, 2)), made("n", 82, 9_830)]
    (group,) = readings(results)
    for grid in (fit_grid(group), readings_grid(group), sets_grid(group), signs_grid(group)):
        assert {len(line) for line in grid.lines} == {len(grid.heads)}
        column = grid.heads.index("preset")
        assert [line[column] for line in grid.lines] == [row.preset for row in group]
    panels = [axes for axes in draw(group).axes if axes.get_visible()]
    assert [axes.get_title().split(":")[0] for axes in panels] == [
        f"{row.place}. {row.preset}" for row in group
    ]
    assert {axes.get_xlim() for axes in panels} == {(80, 100)}
    assert {axes.get_ylim() for axes in panels} == {(90, 99)}
    banded = [axes for axes in panels if "each" in axes.get_title()]
    assert [len(axes.collections) for axes in panels if axes not in banded] == [0, 0]
    assert len(banded[0].collections) == 2  # small models have no seeds of their own here


def test_what_lies_below_the_axes_is_told_by_rising_alpha(point, result_of):
    points = [
        point("baseline", 0, 9_800),
        point("connections", 265_000, 5_000, alpha=1.2),
        point("connections", 264_000, 5_000, alpha=1.6),
        point("connections", 266_000, 5_000, alpha=1.4),
        point("connections", 218_460, 9_800, alpha=0.6),
        point("units", 218_460, 9_600, units=SHAPE),
        point("small", 218_460, 9_650, units=SHAPE),
    ]
    found = reading_of(result_of(points, preset="p", experiment="lenet-300-100"))
    assert [setting.split()[-1] for setting in found.below] == ["1.2", "1.4", "1.6"]
