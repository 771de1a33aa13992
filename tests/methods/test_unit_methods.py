"""The methods that remove units: their stages, and one real run of all of them."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.experiments.stages import Context
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.methods.base import Bench, Method
from pycaffe_prune.methods.registry import method_of
from tests.experiments.conftest import NET
from tests.methods.conftest import run_methods

CONV = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 } }
"""
TABLES: dict[str, dict[str, Any]] = {
    "entropy": {"kind": "he2014", "scope": "all", "steps": 2, "images": 200},
    "steps": {"kind": "he2014", "criterion": "onorm", "steps": 2, "retrained": "each-step"},
    "merge": {"kind": "merge"},
    "spread": {"kind": "spread"},
    "random": {"kind": "random-units", "seeds": [3]},
    "genetic": {"kind": "genetic", "images": 300, "generations": 3, "population": 6},
}
COMMON: dict[str, Any] = {"layers": ["ip1", "ip2"], "ratios": [0.5], "iterations": 3}


def bench(net: str = NET) -> Bench:
    path = Path("nowhere")
    context = Context(
        ExperimentFolder(path), path, path, path, ("ip1", "ip2", "ip3"), fingerprint="0"
    )
    return Bench(context, (), text_format.Parse(net, NetParameter()))


def method(**table: Any) -> Method:
    return method_of(COMMON | table)


@pytest.mark.parametrize("name", TABLES)
def test_as_many_stages_as_are_told_and_each_setting_makes_another(name: str) -> None:
    table = TABLES[name]
    chains = method(**table).chains(bench())
    stages = [stage for chain in chains for stage in chain.stages]
    assert len(stages) == method(**table).most_stages(())
    different: dict[str, list[Any]] = {
        "layers": [["ip1"]],
        "ratios": [[0.4]],
        "iterations": [4],
        "he2014": [{"criterion": "inorm"}, {"scope": "layer"}, {"scope": "all"}, {"steps": 3}],
        "genetic": [{"seed": 1}, {"scope": "all"}, {"images": 200}, {"generations": 2}],
        "random-units": [{"seeds": [4]}],
    }
    others = [{key: value[0]} for key, value in different.items() if key in COMMON]
    others += different.get(table["kind"], [])
    keys = {stage.key for stage in stages}
    for other in others:
        changed = method(**{**table, **other})
        last = {chain.stages[-1].key for chain in changed.chains(bench())}
        assert last.isdisjoint(keys) == (changed != method(**table)), other


def test_units_left_are_told_where_each_layer_loses_its_share() -> None:
    (chain,) = method(kind="merge").chains(bench())
    assert chain.units == (("ip1", 10), ("ip2", 6))
    (chain,) = method(kind="he2014", scope="all").chains(bench())
    assert chain.units is None
    seeded = method(kind="random-units", seeds=[1, 2], ratios=[0.2, 0.5]).chains(bench())
    assert [chain.value for chain in seeded] == [0.2, 0.2, 0.5, 0.5]


def test_points_of_two_seeds_are_told_apart() -> None:
    told = method(kind="random-units", seeds=[1, 2])
    texts = [
        told.tell(chain.value, dict(chain.units or ())).noted(chain.note).text
        for chain in told.chains(bench())
    ]
    assert texts == ["ip1 10, ip2 6, seed 1", "ip1 10, ip2 6, seed 2"]
    (alone,) = method(kind="random-units").chains(bench())
    assert told.tell(alone.value, {"ip1": 10}).noted(alone.note).text == "ip1 10"


def test_filters_are_those_of_convolutions() -> None:
    with_filters = NET.replace('layer { name: "ip1"', CONV + 'layer { name: "ip1"')
    (chain,) = method(kind="l1-filters", layers=["conv"]).chains(bench(with_filters))
    assert chain.stages[0].settings["criterion"] == "l1"
    assert chain.units is None
    with pytest.raises(FormatError, match=r"layer 'ip1' \(InnerProduct\) has no filters"):
        method(kind="l1-filters").chains(bench(with_filters))
    with pytest.raises(FormatError, match="the net has no layer 'other'"):
        method(kind="geometric-median", layers=["other"]).chains(bench())


def test_all_of_them_run(small_net: Path, digits: Path) -> None:
    tables = ""
    for name, table in TABLES.items():
        lines = "\n".join(f"{key} = {_told(value)}" for key, value in (COMMON | table).items())
        tables += f'[[methods]]\nname = "{name}"\n{lines}\n'
    run_methods(small_net, digits, tables, iterations=60)
    result = read_result(small_net / "run" / "result.json")
    points = {point.method: point for point in result.points}
    for name in TABLES:
        left = points[name].units
        assert left is not None
        assert sum(left.values()) == 16
        if name != "entropy":
            assert left == {"ip1": 10, "ip2": 6}
    kept = [[layer.kept for layer in part.layers] for part in points["steps"].rounds]
    assert kept == [[15 * 784, 15 * 9, 9 * 10], [10 * 784, 10 * 6, 6 * 10]]
    # Chosen by the training images, so better than by chance before any retraining.
    assert points["genetic"].rounds[0].before.accuracy > points["random"].rounds[0].before.accuracy


def _told(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_told, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
