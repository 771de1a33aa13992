import json
import os
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.net.state_wish import (
    StateWish,
    chosen_layers,
    in_wished_state,
    only_layers_of,
    read_net_in_state,
    with_state_of,
)

BUILD = Path(__file__).parent / "build_with_caffe.py"

STAGED = """
state { stage: "own" }
layer {
  name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 2 } }
}
layer { name: "own" type: "ReLU" bottom: "data" top: "own" include { stage: "own" } }
layer { name: "deploy" type: "ReLU" bottom: "data" top: "deploy" include { stage: "deploy" } }
layer { name: "not" type: "ReLU" bottom: "data" top: "not" exclude { stage: "deploy" } }
layer { name: "high" type: "ReLU" bottom: "data" top: "high" include { min_level: 2 } }
layer { name: "train" type: "ReLU" bottom: "data" top: "train" include { phase: TRAIN } }
"""
WISHES = [
    StateWish(),
    StateWish(TRAIN),
    StateWish(TEST, None, ("deploy",)),
    StateWish(TRAIN, 2, ("deploy",)),
    StateWish(TEST, 1),
]


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "staged.prototxt"
    path.write_text(STAGED)
    return path


def names(net: NetParameter, wish: StateWish = StateWish()) -> list[str]:  # noqa: B008  (frozen)
    return [layer.name for layer in chosen_layers(net, wish)]


@pytest.mark.real_caffe
def test_a_wished_state_has_the_layers_that_pycaffe_gives_it(
    staged: Path, caffe_python: Path
) -> None:
    # pycaffe builds the net of one level: none wished is its own, 0.
    states = [[wish.phase, wish.level or 0, list(wish.stages)] for wish in WISHES]
    (staged.parent / "states.json").write_text(json.dumps(states))
    answer = subprocess.run(
        [caffe_python, BUILD, staged, staged.parent / "states.json"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"GLOG_minloglevel": "2"},
    ).stdout
    assert json.loads(answer) == [names(read_net_in_state(staged, wish), wish) for wish in WISHES]


@pytest.mark.parametrize("wish", WISHES)
def test_the_layers_of_a_state_alone_are_those_of_every_state(
    staged: Path, wish: StateWish
) -> None:
    net = read_net_in_state(staged, wish)
    alone = only_layers_of(net, wish)
    assert names(alone) == names(alone, StateWish(TRAIN)) == names(net, wish)


def test_what_was_chosen_does_not_stay_in_a_net_that_is_written(staged: Path) -> None:
    net = read_net_in_state(staged, StateWish())
    wished = in_wished_state(net, StateWish(TEST, 3, ("deploy",)), staged)
    assert wished != net
    assert with_state_of(wished, net) == net
    plain = text_format.Parse('layer { name: "a" type: "ReLU" }', NetParameter())
    assert not with_state_of(wished, plain).HasField("state")


def test_a_stage_or_level_that_no_rule_asks_for_is_refused(staged: Path) -> None:
    with pytest.raises(FormatError, match=r"'deplyo'; the stages that are asked for: deploy, own$"):
        read_net_in_state(staged, StateWish(TEST, None, ("own", "deplyo")))
    plain = text_format.Parse('layer { name: "a" type: "ReLU" }', NetParameter())
    with pytest.raises(FormatError, match="level 1 would change nothing"):
        in_wished_state(plain, StateWish(TEST, 1), staged)
    with pytest.raises(FormatError, match="asked for: none"):
        in_wished_state(plain, StateWish(TEST, None, ("a",)), staged)
