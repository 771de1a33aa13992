"""Nets on a GPU, for which a stand-in is here: the numbers are those of the CPU."""

import gc
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.modes import MODES, Modes
from tests.pycaffe.gpu_stand_in import StandIn, stand_in_device
from tests.pycaffe.test_twins import faults

NET = """
force_backward: true
layer { name: 'data' type: 'Input' top: 'data' top: 'label'
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } } }
layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }
layer { name: 'ip' type: 'InnerProduct' bottom: 'conv' top: 'ip'
  inner_product_param { num_output: 5 weight_filler { type: 'xavier' } } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' }
"""
SCRIPTS = [
    "fine_tune",
    "made_data",
    "memory_data",
    "net_files",
    "net_reshape",
    "python_loss",
    "recurrent",
    "siamese",
    "solver_snapshots",
    "solver_tests",
]
"""Twin scripts that look at blobs anew after each pass, and draw nothing."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Two GPUs; nets are made on the first."""

    def device(modes: Modes) -> torch.device:
        return stand_in_device(modes.device_id) if modes.gpu else torch.device("cpu")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Modes, "device", property(device))
    before = torch.backends.cudnn.allow_tf32
    caffe.set_mode_gpu()
    with StandIn() as stand_in:
        yield stand_in
    MODES.gpu, MODES.device_id = False, 0
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "net.prototxt"
    file.write_text(NET)
    return str(file)


def made(path: str) -> caffe.Net:
    caffe.set_random_seed(5)
    net = caffe.Net(path, caffe.TRAIN)
    net.blobs["data"].data[...] = np.random.default_rng(1).normal(size=(2, 3, 6, 6))
    net.blobs["label"].data[...] = [1, 4]
    return net


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_what_it_prints_on_the_cpu(
    name: str,
    our_output: Callable[[str], str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cpu = our_output(name)
    gpu = request.getfixturevalue("gpu")
    monkeypatch.setattr(Modes, "device", stand_in_device(0))  # also after set_mode_cpu
    pairs = zip_longest(on_cpu.splitlines(), our_output(name).splitlines(), fillvalue="")
    assert not [fault for pair in pairs for fault in faults(*pair)]
    assert gpu.copies


def test_the_device_is_that_of_when_a_net_was_made(gpu: StandIn, path: str) -> None:
    first = made(path)
    caffe.set_device(1)
    second = made(path)
    caffe.set_mode_cpu()
    third = made(path)
    found = [net._parameters.data.device for net in (first, second, third)]
    assert found == [stand_in_device(0), stand_in_device(1), torch.device("cpu")]
    losses = [float(net.forward()["loss"]) for net in (first, second, third)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_what_is_written_is_read_by_the_next_pass_and_goes_over_once(
    gpu: StandIn, path: str
) -> None:
    net = made(path)
    net.forward()
    gpu.copies = 0
    net.forward()
    net.backward()
    assert gpu.copies == 3  # the loss and two gradients, which the script was given
    weight, bias = net.params["ip"]
    weight.data[...] = 0
    bias.data[...] = [0, 9, 0, 0, 0]
    gpu.copies = 0
    net._forward(0, len(net.layers) - 1)
    net._forward(0, len(net.layers) - 1)
    assert gpu.copies == 2
    assert (net.blobs["ip"].data.argmax(1) == 1).all()


def test_a_view_outlives_its_net(gpu: StandIn, path: str) -> None:
    net = made(path)
    net.forward()
    net.backward()
    blobs = (net.blobs["conv"], net.params["ip"][0])
    views = [(blob.data, blob.diff) for blob in blobs]
    expected = [(data.copy(), diff.copy()) for data, diff in views]
    late = net.params["conv"][0]
    before = late.data.copy()
    del net, blobs
    gc.collect()
    for pair, values in zip(views, expected, strict=True):
        for view, value in zip(pair, values, strict=True):
            assert value.any()
            np.testing.assert_array_equal(view, value)
    np.testing.assert_array_equal(late.data, before)


def test_weights_go_between_nets_of_both_sides_but_are_not_shared(
    gpu: StandIn, path: str, tmp_path: Path
) -> None:
    here = made(path)
    here.params["ip"][1].data[...] = [1, 2, 3, 4, 5]
    caffe.set_mode_cpu()
    there = made(path)
    there.copy_from(here)
    np.testing.assert_array_equal(there.params["ip"][1].data, [1, 2, 3, 4, 5])
    there.params["ip"][1].data[...] *= 2
    here.copy_from(there)
    np.testing.assert_array_equal(here.params["ip"][1].data, [2, 4, 6, 8, 10])
    for one, other in ((here, there), (there, here)):
        with pytest.raises(PruneError, match=r"one net computes on .*, the other on"):
            one.share_with(other)
