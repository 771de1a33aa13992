import json
import os
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter, NetStateRule
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state, states_of, with_state

BUILD = Path(__file__).parent / "build_with_caffe.py"
STAGES: tuple[tuple[str, ...], ...] = ((), ("a",), ("b",), ("a", "b"))


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def graph_of(text: str) -> NetGraph:
    return NetGraph(net_of(text).layer)


def readers(graph: NetGraph, name: str) -> list[str]:
    return [layer.name for layer in graph.consumers(name)]


RULES = [
    # rules, then the states (phase, level, stages) in which the layer is in and those in which not
    ("", [(TRAIN, 0, ()), (TEST, 5, ("a",))], []),
    ("include { phase: TRAIN }", [(TRAIN, 0, ())], [(TEST, 0, ())]),
    ("exclude { phase: TRAIN }", [(TEST, 0, ())], [(TRAIN, 0, ())]),
    ("include { phase: TRAIN } include { phase: TEST }", [(TRAIN, 0, ()), (TEST, 0, ())], []),
    ("exclude { phase: TRAIN } exclude { phase: TEST }", [], [(TRAIN, 0, ()), (TEST, 0, ())]),
    ("include { min_level: 1 }", [(TEST, 1, ()), (TEST, 2, ())], [(TEST, 0, ())]),
    ("include { max_level: 1 }", [(TEST, 0, ()), (TEST, 1, ())], [(TEST, 2, ())]),
    ("include { min_level: 0 }", [(TEST, 0, ())], [(TEST, -1, ())]),
    ("include { max_level: 0 }", [(TEST, 0, ())], [(TEST, 1, ())]),
    ('include { stage: "a" }', [(TEST, 0, ("a",)), (TEST, 0, ("b", "a"))], [(TEST, 0, ("b",))]),
    ('include { stage: "a" stage: "b" }', [(TEST, 0, ("b", "a"))], [(TEST, 0, ("a",))]),
    ('include { not_stage: "a" }', [(TEST, 0, ("b",))], [(TEST, 0, ("a", "b"))]),
    (
        'exclude { phase: TEST stage: "a" }',
        [(TEST, 0, ("b",)), (TRAIN, 0, ("a",))],
        [(TEST, 0, ("a",))],
    ),
]


@pytest.mark.parametrize(("rules", "inside", "outside"), RULES)
def test_a_layer_is_in_when_its_rules_say_so(
    rules: str,
    inside: list[tuple[int, int, tuple[str, ...]]],
    outside: list[tuple[int, int, tuple[str, ...]]],
) -> None:
    net = net_of(f'layer {{ name: "x" type: "Power" {rules} }}')
    for states, wanted in ((inside, ["x"]), (outside, [])):
        for phase, level, stages in states:
            state = NetState(phase, level, stages)  # type: ignore[arg-type]  # Phase is an int
            assert [layer.name for layer in layers_in_state(net, state)] == wanted


def test_the_state_is_test_unless_said_otherwise() -> None:
    assert NetState() == NetState(TEST, 0, ())


def test_a_net_has_the_level_and_stages_of_its_own_state_and_those_added() -> None:
    net = net_of('state { level: 2 stage: "a" }')
    assert NetState.of(net, TRAIN) == NetState(TRAIN, 2, ("a",))
    assert NetState.of(with_state(net, None, ["b"]), TEST) == NetState(TEST, 2, ("a", "b"))
    assert NetState.of(with_state(net, 0, []), TEST) == NetState(TEST, 0, ("a",))
    assert NetState.of(net, TEST) == NetState(TEST, 2, ("a",)), "the argument is untouched"


def test_every_state_of_a_net_begins_with_its_own() -> None:
    net = net_of(
        'state { stage: "a" } layer { name: "x" include { stage: "a" } exclude { stage: "b" } }'
    )
    assert {state.stages for state in states_of(net)} == {("a",), ("a", "b")}


def net_with_random_rules(seed: int) -> NetParameter:
    random = np.random.default_rng(seed)
    net = net_of('layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 1 } } }')
    for number in range(40):
        layer = net.layer.add(name=f"layer {number}", type="Power", bottom=["in"])
        layer.top.append(f"blob {number}")
        rules = (layer.include, layer.exclude)[random.integers(2)]
        for _ in range(random.integers(4)):
            rule: NetStateRule = rules.add()
            if random.random() < 0.4:
                rule.phase = (TRAIN, TEST)[random.integers(2)]
            if random.random() < 0.3:
                rule.min_level = int(random.integers(-1, 3))
            if random.random() < 0.3:
                rule.max_level = int(random.integers(-1, 3))
            for stages in (rule.stage, rule.not_stage):
                stages.extend(stage for stage in "ab" if random.random() < 0.2)
    return net


@pytest.mark.real_caffe
def test_the_layers_are_those_that_the_real_caffe_builds(
    tmp_path: Path, caffe_python: Path
) -> None:
    net = net_with_random_rules(seed=3)
    states = list(product((TRAIN, TEST), (-1, 0, 1, 2), STAGES))
    write_prototxt(tmp_path / "net.prototxt", net)
    (tmp_path / "states.json").write_text(json.dumps(states))
    done = subprocess.run(
        [caffe_python, BUILD, tmp_path / "net.prototxt", tmp_path / "states.json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GLOG_minloglevel": "2"},
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    ours = [
        [layer.name for layer in layers_in_state(net, NetState(phase, level, stages))]
        for phase, level, stages in states
    ]
    assert ours == built
    assert len({len(names) for names in built}) > 5  # the rules do make a difference


def test_readers_before_and_after_a_layer_in_place_read_different_versions() -> None:
    graph = graph_of("""
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" }
layer { name: "early" type: "InnerProduct" bottom: "ip1" top: "early" }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "late" type: "InnerProduct" bottom: "ip1" top: "late" }
""")
    assert readers(graph, "ip1") == ["early", "relu1"]
    assert readers(graph, "relu1") == ["drop1"]
    assert readers(graph, "drop1") == ["late"]
    assert readers(graph, "late") == []


def test_a_blob_that_is_written_anew_has_a_new_producer() -> None:
    graph = graph_of("""
layer { name: "one" type: "Power" bottom: "data" top: "x" }
layer { name: "first" type: "Power" bottom: "x" top: "first" }
layer { name: "two" type: "Power" bottom: "data" top: "x" }
layer { name: "second" type: "Power" bottom: "x" top: "second" }
""")
    assert readers(graph, "one") == ["first"]
    assert readers(graph, "two") == ["second"]


def test_all_tops_of_a_layer_count_in_order_of_the_file() -> None:
    graph = graph_of("""
layer { name: "data" type: "Data" top: "data" top: "label" }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }
layer { name: "tail" type: "Power" bottom: "data" top: "tail" }
""")
    assert readers(graph, "data") == ["ip", "loss", "tail"]
    assert readers(graph, "nobody") == []


def test_ancestors_are_those_whose_versions_of_blobs_are_read() -> None:
    graph = graph_of("""
layer { name: "data" type: "Data" top: "x" top: "label" }
layer { name: "one" type: "Power" bottom: "x" top: "y" }
layer { name: "early" type: "Power" bottom: "y" top: "early" }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "late" type: "Power" bottom: "y" bottom: "early" top: "late" }
layer { name: "apart" type: "Power" bottom: "nowhere" top: "apart" }
""")
    assert graph.ancestors([2]) == {0, 1, 2}
    assert graph.ancestors([4]) == {0, 1, 2, 3, 4}
    assert graph.ancestors(iter([2, 5])) == {0, 1, 2, 5}
    assert graph.ancestors([]) == set()


def test_both_phases_have_their_own_readers() -> None:
    net = net_of("""
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" }
""")
    train, test = NetGraph.of_all_states(net)
    assert readers(train, "ip") == ["relu"]
    assert readers(train, "relu") == ["loss"]
    assert readers(test, "ip") == ["accuracy", "loss"]


def test_include_and_exclude_rules_at_once_are_refused() -> None:
    net = net_of('layer { name: "x" type: "ReLU" include { phase: TRAIN } exclude { stage: "a" } }')
    with pytest.raises(SurgeryError, match=r"layer 'x' \(ReLU\) has include and exclude rules"):
        layers_in_state(net, NetState(TEST))
