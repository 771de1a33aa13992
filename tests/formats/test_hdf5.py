import random
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.hdf5 import read_hdf5_weights, write_hdf5_weights
from pycaffe_prune.formats.named_model import named_model
from tests.formats.comparison import require_same_blobs

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

blobs = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: name != ".")


@st.composite
def models(draw: st.DrawFn) -> Caffemodel:
    """Layers with blobs and names, some of which share parameters."""
    layers = []
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        arrays = draw(st.lists(blobs, min_size=1, max_size=3))
        param = LayerParameter(name=name)
        for shared in draw(st.lists(st.sampled_from(["", "w", "b"]), max_size=4)):
            param.param.add(name=shared)
        layers.append(Layer(param, tuple(arrays)))
    return Caffemodel(tuple(layers))


def small_model() -> Caffemodel:
    random_ = np.random.default_rng(3)
    shapes = {("ip2", 0): (3, 2), ("ip2", 1): (3,), ("ip1", 0): (2, 3, 1, 1)}
    return named_model(
        {key: random_.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    )


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models())
def test_what_is_written_is_read_back(tmp_path: Path, model: Caffemodel) -> None:
    write_hdf5_weights(tmp_path / "a.h5", model)
    found = read_hdf5_weights(tmp_path / "a.h5")
    require_same_blobs(found, model)
    assert [layer.param for layer in found.layers] == [
        LayerParameter(name=layer.name) for layer in model.layers
    ]


def test_layers_without_blobs_are_left_out(tmp_path: Path) -> None:
    relu = Layer(LayerParameter(name="relu", type="ReLU"))
    write_hdf5_weights(tmp_path / "a.h5", Caffemodel((relu, *small_model().layers, relu)))
    require_same_blobs(read_hdf5_weights(tmp_path / "a.h5"), small_model())


def test_gradients_lie_beside_the_values(tmp_path: Path) -> None:
    blobs = small_model().layers[0].blobs
    layer = Layer(LayerParameter(name="fc"), blobs, tuple(-blob for blob in blobs))
    write_hdf5_weights(tmp_path / "a.h5", Caffemodel((layer,)))
    with h5py.File(tmp_path / "a.h5") as file:
        for index, blob in enumerate(blobs):
            assert np.array_equal(file[f"diff/fc/{index}"][()], -blob)
    require_same_blobs(read_hdf5_weights(tmp_path / "a.h5"), Caffemodel((layer,)))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write_hdf5_weights(tmp_path / "first", small_model())
    time.sleep(1.1)  # HDF5 counts time stamps in seconds
    write_hdf5_weights(tmp_path / "again", small_model())
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()


NET = """
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 2 dim: 2 dim: 4 dim: 5 } } }
layer { name: "z Faltung·ü" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 group: 2
                            weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "slope" type: "PReLU" bottom: "conv" top: "conv"
        prelu_param { channel_shared: true } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "first" type: "InnerProduct" bottom: "conv" top: "first" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "again" type: "InnerProduct" bottom: "conv" top: "again" param { name: "w" }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_term: false } }
"""


def as_keys(npz: Path) -> dict[BlobKey, np.ndarray]:
    with np.load(npz) as arrays:
        return {
            (name.rpartition(":")[0], int(name.rpartition(":")[2])): arrays[name] for name in arrays
        }


def require_same_values(model: Caffemodel, theirs: dict[BlobKey, np.ndarray]) -> None:
    ours = dict(model.blobs())
    assert len(ours) == 9
    assert ours.keys() == theirs.keys()
    for key, blob in ours.items():
        assert blob.shape == theirs[key].shape
        assert blob.tobytes() == theirs[key].tobytes()


@pytest.mark.real_caffe
def test_caffe_loads_what_we_write_and_we_read_what_caffe_saves(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    run_caffe(
        "save_hdf5", "net.prototxt", "theirs.h5", "theirs.caffemodel", "saved.npz", cwd=tmp_path
    )
    saved = as_keys(tmp_path / "saved.npz")
    model = read_caffemodel(tmp_path / "theirs.caffemodel")
    require_same_values(model, saved)

    owned = {key: blob for key, blob in saved.items() if key != ("again", 0)}
    theirs = dict(read_hdf5_weights(tmp_path / "theirs.h5").blobs())
    assert list(theirs) == sorted(theirs)  # Caffe's files tell no other order
    assert theirs.keys() == owned.keys()
    assert all(theirs[key].tobytes() == owned[key].tobytes() for key in owned)

    random_ = np.random.default_rng(1)
    changed = model.with_blobs(
        {key: random_.standard_normal(blob.shape, np.float32) for key, blob in model.blobs()}
    )
    changed = changed.with_blobs({("again", 0): changed.layer("first").blobs[0]})
    write_hdf5_weights(tmp_path / "ours.h5", changed)
    run_caffe("load", "net.prototxt", "ours.h5", "loaded.npz", cwd=tmp_path)
    require_same_values(changed, as_keys(tmp_path / "loaded.npz"))

    write_caffemodel(tmp_path / "ours", read_hdf5_weights(tmp_path / "ours.h5"))
    run_caffe("load", "net.prototxt", "ours", "loaded.npz", cwd=tmp_path)
    require_same_values(changed, as_keys(tmp_path / "loaded.npz"))


@pytest.mark.real_caffe
@pytest.mark.parametrize("network", ["lenet", "cifar10_quick"])
def test_caffe_loads_real_weights_from_our_hdf5(
    run_caffe: Callable[..., None], data_dir: Path, tmp_path: Path, network: str
) -> None:
    source = sorted((data_dir / "zoo" / network).glob("*.caffemodel"))[0]
    net = Path(__file__).parents[2] / "prototxt" / network / "deploy.prototxt"
    expected = dict(read_caffemodel(source).blobs())
    write_hdf5_weights(tmp_path / "weights.h5", read_caffemodel(source))
    run_caffe("load", net, "weights.h5", "loaded.npz", cwd=tmp_path)
    loaded = as_keys(tmp_path / "loaded.npz")
    assert loaded.keys() == expected.keys()
    assert all(loaded[key].tobytes() == blob.tobytes() for key, blob in expected.items())


@pytest.mark.real_caffe
def test_a_shared_parameter_is_stored_once_as_caffe_stores_it(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    run_caffe("save_hdf5", "net.prototxt", "theirs.h5", "weights", "saved.npz", cwd=tmp_path)
    write_hdf5_weights(tmp_path / "ours.h5", read_caffemodel(tmp_path / "weights"))
    with h5py.File(tmp_path / "theirs.h5") as theirs, h5py.File(tmp_path / "ours.h5") as ours:
        assert stored_values(ours) == stored_values(theirs) == 4 * 9 + 4 + 1 + 4 + 4 + 1 + 72 + 3
        assert ours["data/again/0"] == ours["data/first/0"]


def stored_values(file: h5py.File) -> int:
    """The values of all datasets, each counted once however many links lead to it."""
    sizes = []
    file.visititems(
        lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None
    )
    return sum(sizes)


@pytest.mark.real_caffe
def test_the_real_caffe_cannot_save_a_name_with_a_slash_nor_do_we(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET.replace("slope", "fire2/slope"))
    with pytest.raises(AssertionError, match="Error saving weights to"):
        run_caffe("save_hdf5", "net.prototxt", "theirs.h5", "weights", "saved.npz", cwd=tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    model = named_model({("caf\U0010ffe9", 0): np.ones(2, np.float32)})
    with pytest.raises(FormatError, match="its name is not UTF-8"):
        write_hdf5_weights(tmp_path / "x.h5", model)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("name", ["fire2/squeeze1x1", "/", "", ".", "nul\0"])
def test_a_name_that_caffe_would_not_give_back_is_refused(tmp_path: Path, name: str) -> None:
    model = named_model({("ip1", 0): np.ones(2, np.float32), (name, 0): np.ones(3, np.float32)})
    with pytest.raises(FormatError, match=f"layer '{name}': Caffe can neither save nor load"):
        write_hdf5_weights(tmp_path / "a.h5", model)
    assert list(tmp_path.iterdir()) == []


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    (layer,) = named_model({("ip1", 0): np.ones(2, np.float32)}).layers
    with pytest.raises(FormatError, match="two layers are called 'ip1'"):
        write_hdf5_weights(tmp_path / "a.h5", Caffemodel((layer, layer)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", "u1"])
def test_other_numbers_are_converted_as_caffe_does(tmp_path: Path, dtype: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/ip1/0"] = np.array([[0, 1], [2, 100]], dtype)
        file["data/ip1/1"] = np.array([1e300])
    weight, bias = read_hdf5_weights(tmp_path / "a.h5").layer("ip1").blobs
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    assert weight.tolist() == [[0, 1], [2, 100]]
    assert bias.tolist() == [np.inf]


def text(data: h5py.Group) -> None:
    data["ip3/0"] = "weights"


def gap(data: h5py.Group) -> None:
    del data["ip2/0"]


def no_blobs(data: h5py.Group) -> None:
    del data["ip1"], data["ip2"]


def no_index(data: h5py.Group) -> None:
    data["ip1/weights"] = np.ones(3)


def leading_zero(data: h5py.Group) -> None:
    data["ip1/01"] = np.ones(3)


def deeper(data: h5py.Group) -> None:
    data["ip1/1/0"] = np.ones(3)


def no_layer(data: h5py.Group) -> None:
    data["0"] = np.ones(3)


def no_group(data: h5py.Group) -> None:
    data.move("/data", "/weights")


def empty_dataspace(data: h5py.Group) -> None:
    data["ip3/0"] = h5py.Empty(np.float32)


def huge(data: h5py.Group) -> None:
    data.create_dataset("ip3/0", (2**20, 2**20), np.float32, chunks=(64, 64))


def never_written(data: h5py.Group) -> None:
    data.create_dataset("ip3/0", (2**10, 2**20), np.float32)


def other_file(data: h5py.Group) -> None:
    data["ip3"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(data: h5py.Group) -> None:
    data["ip3"] = h5py.SoftLink("/data/ip1")


def values_elsewhere(data: h5py.Group) -> None:
    data.create_dataset("ip3/0", (10,), np.float32, external=[("/etc/passwd", 0, 40)])


def virtual(data: h5py.Group) -> None:
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "0", (3,))
    data.create_virtual_dataset("ip3/0", layout)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (no_group, "'/data' is no group"),
        (no_blobs, "holds no blob"),
        (text, "'/data/ip3/0' holds object instead of float32"),
        (gap, "layer 'ip2' has blob 1 but lacks blob 0, .* share"),
        (no_index, "'/data/ip1/weights' is no dataset"),
        (leading_zero, "'/data/ip1/01' is no dataset"),
        (deeper, "'/data/ip1/1' is no dataset"),
        (no_layer, "'/data/0' is no group"),
        (empty_dataspace, "'/data/ip3/0' has shape None, but its values are not there"),
        (huge, r"'/data/ip3/0' has shape \(1048576, 1048576\), but its values are not there"),
        (never_written, r"'/data/ip3/0' has shape .*, but its values are not there"),
        (other_file, "'/data/ip3' is a link to another place"),
        (soft_link, "'/data/ip3' is a link to another place"),
        (values_elsewhere, "'/data/ip3/0' has its values in another file"),
        (virtual, "'/data/ip3/0' has its values in another file"),
    ],
)
def test_what_is_no_weights_file_is_refused(
    tmp_path: Path, damage: Callable[[h5py.Group], None], sentence: str
) -> None:
    path = tmp_path / "bad.h5"
    write_hdf5_weights(path, small_model())
    with h5py.File(path, "r+") as file:
        damage(file["data"])
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; an HDF5 weights .* is needed"):
        read_hdf5_weights(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", bytes(5000)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{path}: cannot be read .*; an HDF5 weights"):
        read_hdf5_weights(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"^{tmp_path}/none: no such file; an HDF5 weights"):
        read_hdf5_weights(tmp_path / "none")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5_weights(path, small_model())
    content = path.read_bytes()
    for cut in range(0, len(content), 997):
        path.write_bytes(content[:cut])
        with pytest.raises(FormatError, match=f"^{path}: "):
            read_hdf5_weights(path)


@pytest.mark.usefixtures("no_fsync")
def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5_weights(path, small_model())
    content = path.read_bytes()
    pick = random.Random(4)  # noqa: S311 -- no secret
    refused = 0
    for _ in range(25):
        damaged = bytearray(content)
        for at in pick.choices(range(len(content)), k=pick.randint(1, 6)):
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read_hdf5_weights(path)
        except FormatError:
            refused += 1
        else:
            write_caffemodel(tmp_path / "again", found)
            require_same_blobs(read_caffemodel(tmp_path / "again"), found)
    assert 0 < refused < 25
