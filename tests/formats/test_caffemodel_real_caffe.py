from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.formats.caffe_pb2 import (
    BlobProto,
    LayerParameter,
    NetParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.prototxt import read_net, write_prototxt

NET = """
name: "tiny"
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 2 dim: 2 dim: 4 dim: 5 } } }
layer { name: "block/conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 group: 2
                            weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "slope" type: "PReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "one" type: "InnerProduct" bottom: "conv" top: "one"
        inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
"""


def as_keys(npz: Path) -> dict[tuple[str, int], np.ndarray]:
    with np.load(npz) as arrays:
        return {
            (name.rpartition(":")[0], int(name.rpartition(":")[2])): arrays[name] for name in arrays
        }


def require_same_values(
    model: Caffemodel, theirs: dict[tuple[str, int], np.ndarray], count: int
) -> None:
    ours = dict(model.blobs())
    assert len(ours) == count
    assert ours.keys() == theirs.keys()
    for key, blob in ours.items():
        assert blob.shape == theirs[key].shape
        assert blob.tobytes() == theirs[key].tobytes()


@pytest.mark.real_caffe
def test_what_pycaffe_saves_is_read_and_what_we_write_is_loaded(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    run_caffe("save", "net.prototxt", "theirs", "saved.npz", cwd=tmp_path)
    model = read_caffemodel(tmp_path / "theirs")
    require_same_values(model, as_keys(tmp_path / "saved.npz"), 8)
    write_caffemodel(tmp_path / "same", model)
    assert (tmp_path / "same").read_bytes() == (tmp_path / "theirs").read_bytes()

    random_ = np.random.default_rng(1)
    changed = model.with_blobs(
        {key: random_.standard_normal(blob.shape, dtype=np.float32) for key, blob in model.blobs()}
    )
    write_caffemodel(tmp_path / "ours", changed)
    run_caffe("load", "net.prototxt", "ours", "loaded.npz", cwd=tmp_path)
    require_same_values(changed, as_keys(tmp_path / "loaded.npz"), 8)


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", ["gbk", "latin1name"])
def test_caffe_reads_strings_that_are_not_utf8_as_we_write_them_and_the_reverse(
    run_caffe: Callable[..., None], tmp_path: Path, name: str
) -> None:
    net = read_net(Path(__file__).parents[1] / "cases" / f"{name}.prototxt")
    net.layer[-1].param.add(name="\U0010ffd6\U0010ffd0")
    write_prototxt(tmp_path / "net.prototxt", net)
    run_caffe("save", "net.prototxt", "theirs", "saved.npz", cwd=tmp_path)
    model = read_caffemodel(tmp_path / "theirs")
    assert (model.net.name, model.layers[-1].param.param) == (net.name, net.layer[-1].param)
    write_caffemodel(tmp_path / "same", model)
    assert (tmp_path / "same").read_bytes() == (tmp_path / "theirs").read_bytes()


def legacy(blob: np.ndarray) -> BlobProto:
    num, channels, height, width = (1,) * (4 - blob.ndim) + blob.shape
    values = blob.reshape(-1).tolist()
    return BlobProto(num=num, channels=channels, height=height, width=width, data=values)


def v1_file(model: Caffemodel) -> NetParameter:
    old = NetParameter()
    types = {"Convolution": V1LayerParameter.CONVOLUTION}
    for layer in model.layers:
        added = old.layers.add(name=layer.name)
        added.type = types.get(layer.type, V1LayerParameter.INNER_PRODUCT)
        added.blobs.extend(map(legacy, layer.blobs))
    return old


def v0_file(model: Caffemodel) -> NetParameter:
    old = NetParameter(name="2013", input=["data"], input_dim=[2, 2, 4, 5])
    old.layers.add(bottom=["data"], top=["pad"]).layer.MergeFrom(
        V0LayerParameter(name="pad", type="padding", blobs=[BlobProto(num=1)])
    )
    for layer in model.layers:
        added = old.layers.add(bottom=["pad" if layer.type == "Convolution" else "data"])
        added.layer.name = layer.name
        added.layer.type = {"Convolution": "conv"}.get(layer.type, "innerproduct")
        added.layer.blobs.extend(map(legacy, layer.blobs))
    return old


@pytest.mark.real_caffe
@pytest.mark.parametrize("old_form", [v1_file, v0_file])
def test_an_old_file_with_legacy_shapes_has_the_values_that_pycaffe_loads(
    run_caffe: Callable[..., None],
    tmp_path: Path,
    old_form: Callable[[Caffemodel], NetParameter],
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    run_caffe("save", "net.prototxt", "new", "saved.npz", cwd=tmp_path)
    model = read_caffemodel(tmp_path / "new")
    model = Caffemodel(
        tuple(layer for layer in model.layers if layer.type in ("Convolution", "InnerProduct"))
    )
    model = model.with_blobs({key: blob * 2 for key, blob in model.blobs()})
    (tmp_path / "old").write_bytes(old_form(model).SerializeToString())
    run_caffe("load", "net.prototxt", "old", "loaded.npz", cwd=tmp_path)
    loaded = as_keys(tmp_path / "loaded.npz")
    kept = {key: blob for key, blob in loaded.items() if key[0] in ("block/conv", "one")}
    found = read_caffemodel(tmp_path / "old")
    require_same_values(found, kept, 4)
    require_same_values(found, dict(model.blobs()), 4)
    assert not found.net.input


def test_blobs_of_a_v0_file_are_views_of_it_and_its_input_comes_as_a_layer(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    param = LayerParameter(name="ip", type="InnerProduct")
    (tmp_path / "old").write_bytes(
        v0_file(Caffemodel((Layer(param, (weights,)),))).SerializeToString()
    )
    model = read_caffemodel(tmp_path / "old")
    assert [layer.type for layer in model.layers] == ["Input", "InnerProduct"]
    found = model.layer("ip").blobs[0]
    assert found.shape == (3, 2)
    assert found.tobytes() == weights.tobytes()
    assert not found.flags.writeable
    assert not found.flags.owndata
