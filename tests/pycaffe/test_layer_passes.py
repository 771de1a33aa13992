"""Every layer type in a net of pycaffe's: looking changes no number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, Phase, given, settings

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.pycaffe import assembly, blobs
from pycaffe_prune.pycaffe.memory import DeviceMemory, Memory
from tests.engines.torch.layer_case import Case
from tests.engines.torch.layer_cases import CASES
from tests.engines.torch.weighted_cases import CASES as WEIGHTED_CASES

ALL = {**CASES, **WEIGHTED_CASES}
STOPPING = {"Accuracy", "ArgMax", "BatchReindex", "Embed", "Filter", "Threshold"}
REPEATABLE = sorted(ALL.keys() - STOPPING - {"BatchNorm", "Dropout", "Parameter"})
few = settings(
    max_examples=2,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Numbers = dict[str, np.ndarray]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.prototxt"


@pytest.mark.parametrize("kind", ALL)
def test_looking_changes_nothing(kind: str, path: Path) -> None:
    @few
    @given(ALL[kind]())
    def same(case: Case) -> None:
        plain = net_of(case, path)
        expected = passes(plain, case)
        held = net_of(case, path)
        held.forward()
        views = [(blob.data, blob.diff) for blob in held.blobs.values()]
        held.clear_param_diffs()
        assert_same(passes(restarted(held, case), case), expected)
        assert len(views) == len(plain.blobs)
        with pytest.MonkeyPatch.context() as patch:
            for module in (blobs, assembly):
                patch.setattr(module, "new_memory", apart)
            assert_same(passes(net_of(case, path), case), expected)

    same()


@pytest.mark.parametrize(
    "kind", sorted(ALL.keys() - STOPPING - {"BatchNorm", "Dropout", "Parameter"})
)
def test_a_gradient_needs_no_forward_pass(kind: str, path: Path) -> None:
    @few
    @given(ALL[kind]())
    def same(case: Case) -> None:
        expected, net = passes(net_of(case, path), case), net_of(case, path)
        net.forward(end=net._layer_names[-2])
        give_diffs(net, case)
        if not (stops(case) or case.in_place):
            net.backward(start="x")
            own = [name for name in expected if name.endswith("diff")]
            assert_same({name: values_of(net)[name] for name in own}, {n: expected[n] for n in own})

    same()


@pytest.mark.parametrize("kind", sorted(ALL.keys() & STOPPING))
def test_caffe_has_no_gradient_there(kind: str, path: Path) -> None:
    @few
    @given(ALL[kind]())
    def refused(case: Case) -> None:
        net = net_of(case, path)
        net.forward()
        with pytest.raises(PruneError, match=r"layer 'x' \("):
            net.backward()

    refused()


def stops(case: Case) -> bool:
    return case.kind in STOPPING or (case.kind == "InfogainLoss" and len(case.bottoms) == 3)


def apart(device: torch.device, flat: torch.Tensor | None = None) -> Memory:
    """Memory as on a GPU, apart from the host's."""
    return DeviceMemory(device, flat)


def net_of(case: Case, path: Path) -> caffe.Net:
    """The layer behind one Power a bottom, with its inputs and weights."""
    net = NetParameter(force_backward=True)
    for number, bottom in enumerate(case.bottoms):
        source = net.layer.add(name=f"i{number}", type="Input", top=[f"i{number}"])
        source.input_param.shape.add(dim=bottom.shape)
        net.layer.add(name=f"p{number}", type="Power", bottom=[f"i{number}"], top=[f"b{number}"])
    net.layer.append(case.param)
    path.write_text(text_format.MessageToString(net))
    caffe.set_random_seed(3)
    return restarted(caffe.Net(str(path), caffe.TEST), case)


def restarted(net: caffe.Net, case: Case) -> caffe.Net:
    for number, bottom in enumerate(case.bottoms):
        net.blobs[f"i{number}"].data[...] = bottom
    for blob, values in zip(net.layers[-1].blobs, case.params, strict=True):
        blob.data[...] = values
    return net


def give_diffs(net: caffe.Net, case: Case) -> None:
    for name, diff in zip(case.param.top, case.top_diffs(), strict=True):
        net.blobs[name].diff[...] = 0 if diff is None else diff


def passes(net: caffe.Net, case: Case) -> Numbers:
    net.forward()
    give_diffs(net, case)
    if not stops(case):
        net.backward()
    return values_of(net)


def values_of(net: caffe.Net) -> Numbers:
    numbers: Numbers = {}
    for name, blob in net.blobs.items():
        numbers[f"{name} data"], numbers[f"{name} diff"] = blob.data.copy(), blob.diff.copy()
    for number, blob in enumerate(net.layers[-1].blobs):
        numbers[f"{number} data"], numbers[f"{number} diff"] = blob.data.copy(), blob.diff.copy()
    return numbers


def assert_same(found: Numbers, expected: Numbers) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
