"""What pycaffe's net does beside what the twin scripts compare, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe import _caffe, assembly, blobs
from pycaffe_prune.pycaffe.flat_blobs import FlatBlobs
from pycaffe_prune.pycaffe.memory import DeviceMemory, Memory

SMALL = """
name: 'small' force_backward: true
layer { name: 'data' type: 'Input' top: 'data' top: 'label'
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } } }
layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }
layer { name: 'drop' type: 'Dropout' bottom: 'conv' top: 'drop' }
layer { name: 'flat' type: 'Flatten' bottom: 'drop' top: 'flat' }
layer { name: 'ip' type: 'InnerProduct' bottom: 'flat' top: 'ip'
  inner_product_param { num_output: 5 weight_filler { type: 'xavier' } } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' }
"""
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def small(write: Write) -> caffe.Net:
    return made(write)


def made(write: Write, phase: int = caffe.TRAIN) -> caffe.Net:
    caffe.set_random_seed(5)
    net = caffe.Net(write(SMALL), phase)
    draws = np.random.default_rng(1)
    net.blobs["data"].data[...] = draws.normal(size=(2, 3, 6, 6))
    net.blobs["label"].data[...] = [1, 4]
    return net


def passes(net: caffe.Net) -> dict[str, np.ndarray]:
    net.clear_param_diffs()
    net.forward()
    net.backward()
    found = {f"{name} data": blob.data.copy() for name, blob in net.blobs.items()}
    found |= {f"{name} diff": blob.diff.copy() for name, blob in net.blobs.items()}
    for name, own in net.params.items():
        for index, blob in enumerate(own):
            found[f"{name}[{index}] data"] = blob.data.copy()
            found[f"{name}[{index}] diff"] = blob.diff.copy()
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_one_seed_gives_one_net(write: Write) -> None:
    assert_same(passes(made(write)), passes(made(write)))


def test_looking_at_a_blob_changes_no_number(write: Write) -> None:
    looked_at, plain = made(write), made(write)
    views = [(blob.data, blob.diff) for blob in looked_at.blobs.values()]
    assert_same(passes(looked_at), passes(plain))
    assert all(data.base is not None and diff.base is not None for data, diff in views)


def test_a_view_shows_each_later_pass(small: caffe.Net) -> None:
    view = small.blobs["conv"].data
    small.forward()
    assert np.shares_memory(view, small.blobs["conv"].data)
    first = view.copy()
    small.blobs["data"].data[...] *= 2
    small.forward()
    assert (view != first).any()
    assert (view == small.blobs["conv"].data).all()


def test_a_view_takes_no_copy_of_parameters(small: caffe.Net) -> None:
    flat = small._parameters.data.numpy()
    for own in small.params.values():
        for blob in own:
            assert np.shares_memory(blob.data, flat)


def test_the_shape_of_a_view_is_its_own(small: caffe.Net) -> None:
    view = small.blobs["conv"].data
    view.shape = (2, -1)
    assert small.blobs["conv"].data.shape == (2, 4, 4, 4)


def test_what_is_written_after_a_pass_counts_in_the_gradient(write: Write) -> None:
    changed, plain = made(write, caffe.TEST), made(write, caffe.TEST)
    changed.blobs["data"].data[...] *= -1
    changed.forward()
    changed.blobs["data"].data[...] *= -1
    changed.forward(end="relu")  # the same bottoms again, then only the gradient
    plain.forward()
    for net in (changed, plain):
        net.blobs["conv"].diff[...] = 1
        net.backward(start="relu")
    np.testing.assert_allclose(
        changed.params["conv"][0].diff, plain.params["conv"][0].diff, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["Sigmoid", "TanH", "ELU", "Exp", "ReLU"])
def test_looking_between_the_passes_changes_no_gradient(write: Write, kind: str) -> None:
    twice = f"type: '{kind}' bottom: 'conv' top: 'conv' }} layer {{ name: 'more' type: 'Power' "
    text = SMALL.replace("type: 'ReLU'", twice + "power_param { scale: 0.5 shift: 0.3 }")
    found = []
    for looks in (False, True):
        net = caffe.Net(write(text.replace("Dropout", "AbsVal")), caffe.TRAIN)
        draws = np.random.default_rng(2)
        for blob in (net.blobs["data"], *(own[0] for own in net.params.values())):
            blob.data[...] = draws.normal(size=blob.data.shape)
        net.forward()
        if looks:
            assert net.blobs["conv"].data.any()
        net.backward()
        found.append(net.params["conv"][0].diff.copy())
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)
    assert found[0].any()


def test_backward_twice_adds_up(small: caffe.Net) -> None:
    small.forward()
    small.backward()
    once = small.params["ip"][0].diff.copy()
    assert once.any()
    small.backward()
    np.testing.assert_allclose(small.params["ip"][0].diff, 2 * once, rtol=1e-5)


def test_a_pass_draws_anew_and_goes_on_with_its_draws(small: caffe.Net) -> None:
    def mask() -> np.ndarray:
        return np.asarray(small.blobs["drop"].data != 0)

    small.forward()
    first = mask()
    small.forward(start="drop")
    assert (mask() == first).all()
    small.forward()
    assert (mask() != first).any()


def test_a_loss_counts_as_much_as_its_diff_says(write: Write) -> None:
    plain, threefold = made(write), made(write)
    threefold.blobs["loss"].diff[...] = 3
    expected = 3 * passes(plain)["data diff"]
    np.testing.assert_allclose(passes(threefold)["data diff"], expected, rtol=1e-4, atol=1e-7)


def test_a_net_that_only_tests_goes_back_where_there_is_a_loss(write: Write) -> None:
    net = caffe.Net(write(SMALL.replace("force_backward: true", "")), caffe.TEST)
    net.blobs["data"].data[...] = np.random.default_rng(1).normal(size=(2, 3, 6, 6))
    net.forward()
    net.backward()
    assert net.params["conv"][0].diff.any()
    assert not net.blobs["data"].diff.any()  # nothing before it learns


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets whose memory is that of a GPU's, apart from the host's; here it is the CPU's."""

    def memory(device: torch.device, flat: torch.Tensor | None = None) -> Memory:
        return DeviceMemory(device, flat)

    monkeypatch.setattr(blobs, "new_memory", memory)
    monkeypatch.setattr(assembly, "new_memory", memory)


def test_two_memories_give_the_numbers_of_one(write: Write, request: pytest.FixtureRequest) -> None:
    expected = passes(made(write))
    request.getfixturevalue("on_device")
    assert_same(passes(made(write)), expected)


def test_views_of_a_device_are_synchronised_when_they_are_taken(
    on_device: None, write: Write
) -> None:
    net = made(write)
    net.forward()
    view = net.blobs["conv"].data
    kept = view.copy()
    net.blobs["data"].data[...] *= 2
    net.forward()
    assert (view == kept).all()
    assert (net.blobs["conv"].data != kept).any()
    assert (view == net.blobs["conv"].data).all()
    net.forward(end="relu")
    net.blobs["conv"].data[...] = 0  # read by what comes next
    net.forward(start="drop")
    assert not net.blobs["flat"].data.any()


def test_weights_reach_the_device_and_gradients_come_from_it(on_device: None, write: Write) -> None:
    net = made(write)
    weight = net.params["ip"][0]
    weight.data[...] = 0
    net.params["ip"][1].data[...] = [0, 9, 0, 0, 0]
    net.forward()
    assert (net.blobs["ip"].data.argmax(1) == 1).all()
    net.backward()
    assert weight.diff.any()
    weight.diff[...] = 7
    flat = FlatBlobs(net)
    flat.gather()
    start, stop = net._parameters.place(("ip", 0))
    assert (net._parameters.diff[start:stop] == 7).all()
    net._parameters.data.fill_(2)
    flat.spread()
    assert (weight.data == 2).all()
    net.clear_param_diffs()
    assert not weight.diff.any()


def test_a_net_without_a_name_for_its_loss_has_it_nevertheless(write: Write) -> None:
    net = caffe.Net(write(SMALL.replace("top: 'loss'", "")), caffe.TRAIN)
    assert list(net.blobs)[-1] == "(automatic)"
    assert net.outputs == []
    assert net._forward(0, len(net.layers) - 1) == pytest.approx(np.log(5), abs=1)


def test_parameters_may_be_copied_from_a_net(write: Write) -> None:
    net, other = made(write), caffe.Net(write(SMALL), caffe.TEST)
    other.copy_from(net)
    net.params["ip"][0].data[...] += 1
    np.testing.assert_allclose(
        other.params["ip"][0].data + 1, net.params["ip"][0].data, rtol=1e-5, atol=1e-6
    )


# What Caffe aborts on


def refused(write: Write, text: str) -> str:
    with pytest.raises(PruneError) as caught:
        caffe.Net(write(text), caffe.TRAIN)
    return str(caught.value)


def test_inner_product_takes_no_other_size(small: caffe.Net) -> None:
    small.blobs["data"].reshape(2, 3, 7, 6)
    with pytest.raises(PruneError, match=r"layer 'ip' \(InnerProduct\).*2x80.*5x80.*2x64"):
        small.reshape()


def test_another_number_of_channels_does_not_fit(small: caffe.Net) -> None:
    small.blobs["data"].reshape(2, 5, 6, 6)
    with pytest.raises(PruneError, match=r"layer 'conv'.*4x5x3x3.*4x3x3x3"):
        small.forward()


def test_weights_of_another_shape_are_refused(
    small: caffe.Net, write: Write, tmp_path: Path
) -> None:
    small.save(str(tmp_path / "small.caffemodel"))
    wide = caffe.Net(write(SMALL.replace("num_output: 5", "num_output: 6")), caffe.TRAIN)
    with pytest.raises(RuntimeError, match=r"blob 0 of layer 'ip'.*5x64.*6x64.*rename the layer"):
        wide.copy_from(str(tmp_path / "small.caffemodel"))
    with pytest.raises(RuntimeError, match=r"blob 0 of layer 'ip'.*5x64.*6x64"):
        wide.share_with(small)
    plain = caffe.Net(
        write(SMALL.replace("num_output: 5", "num_output: 5 bias_term: false")), caffe.TRAIN
    )
    with pytest.raises(RuntimeError, match=r"layer 'ip' has 2 blobs, .* 1"):
        plain.copy_from(str(tmp_path / "small.caffemodel"))


def test_a_blob_that_nothing_makes_is_named(write: Write) -> None:
    assert "'nothing'" in refused(write, SMALL.replace("bottom: 'flat'", "bottom: 'nothing'"))


def test_a_blob_that_is_read_and_then_overwritten_is_refused(write: Write) -> None:
    early = (
        "layer { name: 'early' type: 'Power' bottom: 'conv' top: 'early' }\nlayer { name: 'relu'"
    )
    assert "'conv'" in refused(write, SMALL.replace("layer { name: 'relu'", early))


def test_a_misspelt_field_is_named(write: Write) -> None:
    text = SMALL.replace("kernel_size: 3", "kernel_size: 3 strid: 2")
    assert "strid" in refused(write, text)


def test_two_layers_with_weights_need_two_names(write: Write) -> None:
    again = SMALL[SMALL.index("layer { name: 'ip'") : SMALL.index("layer { name: 'loss'")]
    assert "two layers" in refused(write, SMALL + again.replace("top: 'ip'", "top: 'other'"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((caffe.TEST, 0, None, "w"), RuntimeError), ((2,), TypeError), (("w", 1, ["s"]), TypeError)],
)
def test_arguments_are_checked(
    write: Write, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        caffe.Net(write(SMALL), *arguments)


@pytest.mark.parametrize("shape", [(-1,), (1 << 31, 2), (1,) * 33])
def test_impossible_shapes_are_refused(small: caffe.Net, shape: tuple[int, ...]) -> None:
    with pytest.raises(PruneError):
        small.blobs["data"].reshape(*shape)


def test_shapes_come_without_names(small: caffe.Net) -> None:
    with pytest.raises(RuntimeError, match="takes no kwargs"):
        small.blobs["data"].reshape(num=3)
    with pytest.raises(RuntimeError, match="takes no kwargs"):
        small.layers[1].blobs.add_blob(num=3)


def test_five_axes_have_no_old_names() -> None:
    blob = _caffe.Blob((2, 3, 4, 5, 6))
    assert blob.count == 720
    with pytest.raises(PruneError, match="2x3x4x5x6"):
        _ = blob.num


def test_layers_that_are_not_there_are_named(small: caffe.Net) -> None:
    with pytest.raises(ValueError, match="'none'; its layers: data, conv"):
        small.forward(end="none")
    with pytest.raises(PruneError, match="and no 9"):
        small._forward(0, 9)
    with pytest.raises(PruneError, match="and no -1"):
        small._backward(3, -1)
