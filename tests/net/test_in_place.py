"""Judge: the real Caffe's gradient in place, against its gradient with a top for each layer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.in_place import WrongGradient, wrong_gradients
from tests.caffe_process import CaffeProcess

HEAD = """
layer { name: "in" type: "Input" top: "data" top: "target"
  input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 dim: 4 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "x"
  convolution_param { num_output: 4 kernel_size: 1 } }
"""
LOSS = 'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{}" bottom: "target" }}'
KINDS = {
    "relu": 'type: "ReLU"',
    "leaky": 'type: "ReLU" relu_param { negative_slope: 0.3 }',
    "odd": 'type: "ReLU" relu_param { negative_slope: -0.5 }',
    "sigmoid": 'type: "Sigmoid"',
    "tanh": 'type: "TanH"',
    "exp": 'type: "Exp" exp_param { scale: 0.5 }',
    "elu": 'type: "ELU" elu_param { alpha: 0.7 }',
    "bnll": 'type: "BNLL"',
    "abs": 'type: "AbsVal"',
    "log": 'type: "Log" log_param { scale: 0.1 shift: 0.9 }',
    "linear": 'type: "Power" power_param { scale: 2 shift: 1 }',
    "square": 'type: "Power" power_param { power: 2 shift: 0.5 }',
    "cube": 'type: "Power" power_param { power: 3 }',
    "root": 'type: "Power" power_param { power: 0.5 scale: 0.1 shift: 1 }',
    "mvn": 'type: "MVN"',
    "mean": 'type: "MVN" mvn_param { normalize_variance: false }',
    "lrn": 'type: "LRN" lrn_param { local_size: 3 alpha: 1 }',
    "within": 'type: "LRN" lrn_param { local_size: 3 alpha: 1 norm_region: WITHIN_CHANNEL }',
    "softmax": 'type: "Softmax"',
    "dropout": 'type: "Dropout" dropout_param { dropout_ratio: 0.4 }',
    "prelu": 'type: "PReLU"',
    "scale": 'type: "Scale" scale_param { bias_term: true }',
    "bias": 'type: "Bias"',
    "bn": 'type: "BatchNorm"',
}


BY_CHANCE_RIGHT = {("mvn", "mean"), ("mvn", "bn"), ("cube", "odd")}
"""What is normalised already stays as it is; and two wrong factors are the right one."""
REFUSED_IN_PLACE = {"abs"}
"""By Caffe itself."""


def chain(kinds: tuple[str, ...], in_place: tuple[bool, ...]) -> str:
    """A net of these layers after a convolution, some of them in place."""
    text, blob = HEAD, "x"
    for place, (kind, inside) in enumerate(zip(kinds, in_place, strict=True)):
        top = blob if inside else f"t{place}"
        text += f'layer {{ name: "l{place}" bottom: "{blob}" top: "{top}" {KINDS[kind]} }}\n'
        blob = top
    return text + LOSS.format(blob)


def wrong(text: str) -> list[WrongGradient]:
    return wrong_gradients(text_format.Parse(text, NetParameter()))


@pytest.fixture(scope="module")
def gradient(caffe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    folder = tmp_path_factory.mktemp("gradients")
    process = CaffeProcess(
        caffe_python, Path(__file__).with_name("gradients_with_caffe.py"), folder
    )

    def run(text: str) -> NDArray[np.float32]:
        (folder / "net.prototxt").write_text(text)
        process.run({"net": str(folder / "net.prototxt"), "out": str(folder / "out.npy")})
        return np.load(folder / "out.npy")

    yield run
    process.stop()


def differs(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(not np.abs(one - other).max() <= 1e-4 * np.abs(one).max())


@pytest.mark.real_caffe
@pytest.mark.parametrize("first", KINDS)
def test_pairs_are_called_wrong_exactly_where_caffes_gradient_is_another(
    gradient, first: str
) -> None:
    mistaken = []
    for second in KINDS:
        right = gradient(chain((first, second), (False, False)))
        assert not wrong(chain((first, second), (False, False)))
        if not np.isfinite(right).all() or (first, second) in BY_CHANCE_RIGHT:
            continue
        for in_place in ((True, False), (False, True), (True, True)):
            kinds = zip((first, second), in_place, strict=True)
            if any(inside and kind in REFUSED_IN_PLACE for kind, inside in kinds):
                continue
            text = chain((first, second), in_place)
            if differs(right, gradient(text)) != bool(wrong(text)):
                mistaken.append((first, second, in_place, wrong(text)))
    assert not mistaken


SHAPED = "reshape_param { shape { dim: 2 dim: 4 dim: 4 dim: 4 } }"
BRANCHES = {
    "a Split above": """
layer { name: "l0" type: "TanH" bottom: "x" top: "a" }
layer { name: "l1" type: "Scale" bottom: "a" top: "a" }
layer { name: "l2" type: "Eltwise" bottom: "a" bottom: "x" top: "b" }
""",
    "flattened": f"""
layer {{ name: "l0" type: "Sigmoid" bottom: "x" top: "a" }}
layer {{ name: "l1" type: "Flatten" bottom: "a" top: "f" }}
layer {{ name: "l2" type: "Scale" bottom: "f" top: "f" }}
layer {{ name: "l3" type: "Reshape" bottom: "f" top: "b" {SHAPED} }}
""",
    "flattened beside": f"""
layer {{ name: "l0" type: "BNLL" bottom: "x" top: "a" }}
layer {{ name: "l1" type: "Flatten" bottom: "x" top: "f" }}
layer {{ name: "l2" type: "TanH" bottom: "f" top: "f" }}
layer {{ name: "l3" type: "Reshape" bottom: "f" top: "g" {SHAPED} }}
layer {{ name: "l4" type: "Eltwise" bottom: "a" bottom: "g" top: "b" }}
""",
    "the sums of an LSTMUnit": f"""
layer {{ name: "start" type: "Input" top: "cell" top: "marks"
  input_param {{ shape {{ dim: [1, 8, 4] }} shape {{ dim: [1, 8] }} }} }}
layer {{ name: "rows" type: "Reshape" bottom: "x" top: "r"
  reshape_param {{ shape {{ dim: [1, 8, 16] }} }} }}
layer {{ name: "sums" type: "Power" bottom: "r" top: "a" power_param {{ scale: 0.5 }} }}
layer {{ name: "l0" type: "LSTMUnit" bottom: "cell" bottom: "a" bottom: "marks" top: "c" top: "h" }}
layer {{ name: "flat" type: "Flatten" bottom: "a" top: "f" }}
layer {{ name: "l1" type: "TanH" bottom: "f" top: "f" }}
layer {{ name: "l2" type: "Reshape" bottom: "f" top: "g" {SHAPED} }}
layer {{ name: "l3" type: "Tile" bottom: "h" top: "t" tile_param {{ axis: 2 tiles: 4 }} }}
layer {{ name: "l4" type: "Reshape" bottom: "t" top: "u" {SHAPED} }}
layer {{ name: "l5" type: "Eltwise" bottom: "u" bottom: "g" top: "b" }}
""",
}
"""In each l0 is spoiled: Flatten shares memory, and so do the tops of Caffe's own Splits."""


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", BRANCHES)
def test_splits_and_shared_memory_are_seen_as_caffe_makes_them(gradient, name: str) -> None:
    text = HEAD + BRANCHES[name] + LOSS.format("b")
    assert [one.layer for one in wrong(text)] == ["l0"]
    blob = "a" if 'bottom: "a" top: "a"' in text else "f"
    before, _, after = text.partition(f'bottom: "{blob}" top: "{blob}"')
    after = after.replace(f'bottom: "{blob}"', 'bottom: "own"', 1)
    apart = f'{before}bottom: "{blob}" top: "own"{after}'
    assert not wrong(apart)
    assert differs(gradient(apart), gradient(text))


@pytest.mark.real_caffe
def test_chains_of_three_are_called_wrong_where_caffes_gradient_is_another(gradient) -> None:
    random = np.random.default_rng(0)
    kinds = sorted(set(KINDS) - REFUSED_IN_PLACE - {"mvn", "mean", "bn", "odd", "cube"})
    mistaken = []
    for _ in range(150):
        chosen = tuple(map(str, random.choice(kinds, 3)))
        right = gradient(chain(chosen, (False,) * 3))
        in_place = tuple(map(bool, random.random(3) < 0.6))
        text = chain(chosen, in_place)
        if np.isfinite(right).all() and differs(right, gradient(text)) != bool(wrong(text)):
            mistaken.append((chosen, in_place, wrong(text)))
    assert not mistaken


SPOILED = chain(("sigmoid", "scale"), (True, True))


@pytest.mark.parametrize(
    ("change", "is_named"),
    [
        (("", ""), True),
        # Nothing below it learns, or no loss asks for it: there is no gradient.
        (('top: "x"', 'top: "x" param { lr_mult: 0 } param { lr_mult: 0 }'), False),
        (('top: "x"', 'top: "x" param { lr_mult: 0 }'), True),
        (('type: "EuclideanLoss"', 'type: "EuclideanLoss" loss_weight: 0'), False),
        (('name: "l0"', 'name: "l0" propagate_down: false'), False),
        (('name: "l1"', 'name: "l1" include { phase: TEST }'), False),
    ],
)  # fmt: skip
def test_only_layers_that_a_gradient_flows_through_are_named(
    change: tuple[str, str], is_named: bool
) -> None:
    found = wrong(SPOILED.replace(*change) if change[0] else SPOILED)
    assert found == ([WrongGradient("l0", "Sigmoid", "l1")] if is_named else [])
