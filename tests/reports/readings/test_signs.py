"""Signs: the paper's own numbers show them all, and each is missed by as much as is said."""

from dataclasses import replace

import pytest

from pycaffe_prune.reports.readings.curves import Spot
from pycaffe_prune.reports.readings.signs import SIGNS, find_signs

NAMES = [sign.name for sign in SIGNS]


def spot(rate: float, accuracy: float, value: float | None = None, setting: str = "") -> Spot:
    return Spot(setting or f"{value}", value, 1, rate, accuracy, accuracy, accuracy)


PAPERS = {
    "lenet-300-100": {
        "baseline": [spot(0, 98.2)],
        "connections": [spot(80, 98.2, 0.6), spot(95, 97.5, 1.8), spot(99, 90.5, 2.8)],
        "units": [spot(82, 97.9, 0.8, "60"), spot(97, 89, 0.99, "3")],
        "small": [spot(82, 97.9, None, "60"), spot(97, 92, None, "3")],
    },
    "lenet-5": {
        "baseline": [spot(0, 99.1)],
        "connections": [spot(80, 99.1, 0.7), spot(99.5, 99.1, 2.8)],
        "units": [spot(82, 99.0, 0.8, "100"), spot(99, 95.9, 0.99, "5")],
        "small": [spot(82, 99.1, None, "100"), spot(99, 96.5, None, "5")],
    },
}


def signs(experiment, **changed):
    found = find_signs(experiment, {**PAPERS[experiment], **changed})
    return {finding.sign: finding for finding in found}


@pytest.mark.parametrize("experiment", PAPERS)
def test_curves_as_the_paper_has_them_show_every_sign_and_are_no_distance_off(experiment):
    found = signs(experiment)
    assert list(found) == NAMES
    assert {name: row.met for name, row in found.items()} == dict.fromkeys(NAMES, True)
    assert sum(row.distance for row in found.values()) == pytest.approx(0)


def shifted(spots, points):
    return [replace(one, accuracy=one.accuracy + points) for one in spots]


LENET = PAPERS["lenet-300-100"]
MISSED = {
    "start": {"connections": [spot(84, 98.2, 0.6), *LENET["connections"][1:]]},
    "baseline": {"baseline": [spot(0, 97.5)]},
    "order": {"units": [spot(82, 98.7, 0.8, "60"), *LENET["units"][1:]]},
    "small": {"small": shifted(LENET["small"], -4)},
    "leaving": {"connections": [*LENET["connections"][:1], spot(90, 80.0, 1.2)]},
    "floor": {name: shifted(LENET[name], 4) for name in ("connections", "units", "small")},
}


@pytest.mark.parametrize("sign", NAMES)
def test_a_sign_is_missed_with_a_distance_in_ticks(sign):
    found = signs("lenet-300-100", **MISSED[sign])[sign]
    assert found.met is False
    assert found.distance > 0


def test_distances_are_in_ticks_of_the_figures_own_axes():
    assert signs("lenet-300-100", **MISSED["start"])["start"].distance == pytest.approx(4 / 2)
    off = signs("lenet-300-100", baseline=[spot(0, 97.0)])["baseline"].distance
    assert off == pytest.approx(1 / 1)
    off = signs("lenet-5", baseline=[spot(0, 98.6)])["baseline"].distance
    assert off == pytest.approx(0.5 / 0.5)


@pytest.mark.parametrize(
    ("baseline", "met"), [(97.89, False), (97.9, True), (98.0, True), (98.99, True), (99.2, False)]
)
def test_of_98_x_every_decimal_is_allowed_and_a_standard_error_beside(baseline, met):
    assert signs("lenet-300-100", baseline=[spot(0, baseline)])["baseline"].met is met


def test_what_was_not_run_is_neither_shown_nor_missed():
    assert {row.met for row in find_signs("lenet-5", {})} == {None}
    assert signs("lenet-5", small=[])["small"].met is None
    later = PAPERS["lenet-5"]["connections"][1:]
    assert signs("lenet-5", connections=later)["start"].met is None
    few = {name: PAPERS["lenet-5"][name][:1] for name in ("connections", "units", "small")}
    assert signs("lenet-5", **few)["floor"].met is None  # the highest rates could have gone there


def test_what_lies_below_the_papers_axes_is_not_compared():
    units = [*LENET["units"], spot(99.5, 80, 0.999, "1")]
    line = [*LENET["connections"], spot(99.6, 60, 3.0)]
    small = [*LENET["small"], spot(99.5, 70, None, "1")]
    found = signs("lenet-300-100", connections=line, units=units, small=small)
    assert (found["order"].met, found["small"].met) == (True, True)
    seen = [*LENET["units"], spot(99.5, 90.1, 0.999, "1")]
    found = signs("lenet-300-100", connections=line, units=seen, small=small)
    assert (found["order"].met, found["small"].met) == (False, False)
