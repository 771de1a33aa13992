"""One script, two modules: it prints the same numbers under the real pycaffe and under ours."""

import json
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest

from pycaffe_prune.engines.comparison.distances import Difference, gap_of
from pycaffe_prune.engines.comparison.trajectory import tolerance_at

SCRIPTS = sorted(path.stem for path in (Path(__file__).parent / "scripts").glob("*.py"))


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_the_same_numbers(
    name: str, real_outputs: Callable[[str], str], our_output: Callable[[str], str]
) -> None:
    real, ours = real_outputs(name).splitlines(), our_output(name).splitlines()
    pairs = zip_longest(real, ours, fillvalue="")
    assert not [fault for pair in pairs for fault in faults(*pair)]


def faults(real: str, ours: str) -> list[str]:
    """What is not as it should be about one printed line."""
    (label, values), (our_label, our_values) = (_read(line) for line in (real, ours))
    floats: list[float] = []
    our_floats: list[float] = []
    if label != our_label or _rest(values, floats) != _rest(our_values, our_floats):
        return [f"{real[:200]} | {ours[:200]}"]
    iterations = int(label.split("@")[1]) if floats else 1
    found = Difference(label, *gap_of(floats, our_floats), tolerance_at(iterations))
    return [] if found.is_same else [f"{found}: {real[:200]} | {ours[:200]}"]


def _read(line: str) -> tuple[str, object]:
    label, _, values = line.partition(": ")
    return label, json.loads(values or "null")


def _rest(value: object, floats: list[float]) -> object:
    """Move the floats out of a value; what is left must be the same in both."""
    if isinstance(value, list):
        return [_rest(item, floats) for item in value]
    if isinstance(value, float):
        floats.append(value)
        return "float"
    return value


def test_a_rounding_is_allowed_and_more_is_not() -> None:
    assert not faults("loss@1: [1.0, 2.0]", "loss@1: [1.0, 2.00001]")
    assert faults("loss@1: [1.0, 2.0]", "loss@1: [1.0, 2.001]")
    assert not faults("loss@1000: [1.0, 2.0]", "loss@1000: [1.0, 2.001]")


@pytest.mark.parametrize("ours", ["", "top@1: 3", "loss@1: 4", "loss@1: [3]", "loss@1: NaN"])
def test_another_line_is_a_fault(ours: str) -> None:
    assert faults("loss@1: 3", ours)
    assert faults(ours, "loss@1: 3")
