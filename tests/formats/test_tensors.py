import errno
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.named_model import named_model
from pycaffe_prune.formats.tensors import (
    read_npz,
    read_safetensors,
    write_npz,
    write_safetensors,
)
from tests.formats.comparison import require_same_blobs

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

Writer = Callable[[Path, Caffemodel], None]
Reader = Callable[[Path], Caffemodel]
FORMS = [(write_npz, read_npz), (write_safetensors, read_safetensors)]
both_forms = pytest.mark.parametrize(("write", "read"), FORMS)

blobs = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | (
    st.sampled_from(["fire2/squeeze1x1", "a/0", "/", "层", "conv10", "conv2"])
)
models = st.builds(
    lambda layers, net: Caffemodel(
        tuple(Layer(LayerParameter(name=name), tuple(arrays)) for name, arrays in layers.items()),
        NetParameter(name=net) if net else NetParameter(),
    ),
    st.dictionaries(names, st.lists(blobs, min_size=1, max_size=3), min_size=1, max_size=4),
    st.text(),
)


def require_same_layers(found: Caffemodel, expected: Caffemodel) -> None:
    assert [layer.param for layer in found.layers] == [layer.param for layer in expected.layers]
    require_same_blobs(found, expected)


def small_model() -> Caffemodel:
    random_ = np.random.default_rng(3)
    shapes = {("ip2", 0): (3, 2), ("ip2", 1): (3,), ("fire/ip1", 0): (2, 3, 1, 1)}
    return named_model(
        {key: random_.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    )


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models)
def test_an_npz_written_is_read_back(tmp_path: Path, model: Caffemodel) -> None:
    write_npz(tmp_path / "a.npz", model)
    found = read_npz(tmp_path / "a.npz")
    require_same_layers(found, model)
    assert found.net == NetParameter()


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(model=models)
def test_safetensors_written_are_read_back(tmp_path: Path, model: Caffemodel) -> None:
    write_safetensors(tmp_path / "a.safetensors", model)
    found = read_safetensors(tmp_path / "a.safetensors")
    require_same_layers(found, model)
    assert found.net == model.net


def test_other_programs_find_the_tensors_by_name(tmp_path: Path) -> None:
    model = small_model()
    write_npz(tmp_path / "a.npz", model)
    write_safetensors(tmp_path / "a.safetensors", model)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        in_npz = {name: archive[name] for name in archive}
    in_safetensors = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    expected = {f"{layer}/{index}": blob for (layer, index), blob in model.blobs()}
    assert set(expected) == {"ip2/0", "ip2/1", "fire/ip1/0"}
    for found in (in_npz, in_safetensors):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@both_forms
def test_the_zoo_goes_through_and_comes_back(
    data_dir: Path, tmp_path: Path, write: Writer, read: Reader
) -> None:
    for path in sorted(data_dir.glob("zoo/**/*.caffemodel")):
        model = read_caffemodel(path)
        write(tmp_path / "a", model)
        blobs_read = dict(read(tmp_path / "a").blobs())
        assert list(blobs_read) == [key for key, _ in model.blobs()]
        assert all(np.array_equal(blobs_read[key], blob) for key, blob in model.blobs())


@both_forms
def test_layers_without_blobs_are_left_out(tmp_path: Path, write: Writer, read: Reader) -> None:
    relu = Layer(LayerParameter(name="relu", type="ReLU"))
    write(tmp_path / "a", Caffemodel((relu, *small_model().layers, relu)))
    require_same_layers(read(tmp_path / "a"), small_model())


@both_forms
def test_two_layers_of_one_name_are_refused(tmp_path: Path, write: Writer, read: Reader) -> None:
    (layer,) = named_model({("ip1", 0): np.ones(2, np.float32)}).layers
    with pytest.raises(FormatError, match="two layers are called 'ip1'"):
        write(tmp_path / "a", Caffemodel((layer, layer)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nul\0", "long" * 20_000])
def test_a_name_that_no_archive_holds_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match=r"is no name that an \.npz can hold"):
        write_npz(tmp_path / "a.npz", named_model({(name, 0): np.ones(2, np.float32)}))
    assert list(tmp_path.iterdir()) == []


def save_npz(path: Path, tensors: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **tensors)


def save_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(tensors, path)


SAVED = [(save_npz, read_npz), (save_safetensors, read_safetensors)]


@pytest.mark.parametrize(("save", "read"), SAVED)
def test_other_floats_become_float32(
    tmp_path: Path, save: Callable[[Path, dict[str, np.ndarray]], None], read: Reader
) -> None:
    save(tmp_path / "a", {"ip/0": np.array([1e300, 0.1]), "ip/1": np.ones(3, np.float16)})
    weight, bias = read(tmp_path / "a").layer("ip").blobs
    assert weight.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(weight, [np.inf, np.float32(0.1)])


@pytest.mark.parametrize(("save", "read"), SAVED)
@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"weights": np.ones(2, np.float32)}, "'weights' .float32. is no tensor"),
        ({"ip/weight": np.ones(2, np.float32)}, "'ip/weight' .float32. is no tensor"),
        ({"ip/00": np.ones(2, np.float32)}, "'ip/00' .float32. is no tensor"),
        ({"ip/" + "9" * 5000: np.ones(2, np.float32)}, "9' .float32. is no tensor"),
        ({"ip/\u0663": np.ones(2, np.float32)}, "'ip/\u0663' .float32. is no tensor"),
        ({"ip/0": np.ones(2, np.int64)}, "'ip/0' (.int64. is no tensor|holds I64)"),
        ({"ip/1": np.ones(2, np.float32)}, "layer 'ip' has blob 1 but lacks blob 0"),
        ({}, "holds no blob"),
    ],
)
def test_tensors_that_are_no_blobs_are_refused(
    tmp_path: Path,
    save: Callable[[Path, dict[str, np.ndarray]], None],
    read: Reader,
    tensors: dict[str, np.ndarray],
    sentence: str,
) -> None:
    save(tmp_path / "a", tensors)
    with pytest.raises(FormatError, match=f"^{tmp_path}/a: .*{sentence}.* is needed$"):
        read(tmp_path / "a")


@pytest.mark.parametrize("layers", ["", "12", "[", "[1, [], null]", '["other"]', "[" * 100_000])
def test_metadata_of_other_programs_do_no_harm(tmp_path: Path, layers: str) -> None:
    tensors = {"b/0": np.ones(2, np.float32), "a/0": np.ones(3, np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "a", metadata={"layers": layers})
    assert [layer.name for layer in read_safetensors(tmp_path / "a").layers] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        bytes(8) + b"{}",
        (2**63).to_bytes(8, "little") + b"{",
        json.dumps({"ip/0": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}}).encode(),
    ],
)
@pytest.mark.parametrize("read", [read_npz, read_safetensors])
def test_other_files_are_refused(tmp_path: Path, read: Reader, content: bytes) -> None:
    for path, data in (
        (tmp_path / "plain", content),
        (tmp_path / "framed", len(content).to_bytes(8, "little") + content + bytes(4)),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=f"^{path}: .* is needed$"):
            read(path)


@pytest.mark.usefixtures("no_fsync")
@both_forms
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, write: Writer, read: Reader) -> None:
    path = tmp_path / "a"
    write(path, small_model())
    content = path.read_bytes()
    pick = random.Random(6)  # noqa: S311 -- no secret
    refused = 0
    for number in range(400):
        damaged = bytearray(content if number % 2 else content[: pick.randrange(1, len(content))])
        for at in pick.choices(range(len(damaged)), k=pick.randint(0, 3)):
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read(path)
        except FormatError:
            refused += 1
        else:
            write_caffemodel(tmp_path / "again", found)
    assert 150 < refused < 400


def special(tensor: np.ndarray) -> np.ndarray:
    return np.asarray(tensor, np.float32).view(np.uint32)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("BF16", {0x3F80: 1.0, 0xC049: -3.140625, 0x0001: 2.0**-133, 0x7F80: np.inf}),
        (
            "F8_E4M3",
            {0x38: 1.0, 0x7E: 448.0, 0xFE: -448.0, 0x01: 2.0**-9, 0x80: -0.0},
        ),
        ("F8_E5M2", {0x3C: 1.0, 0x7B: 57344.0, 0x7C: np.inf, 0x01: 2.0**-16, 0x84: -(2.0**-14)}),
    ],
)
def test_narrow_floats_become_float32_exactly(
    tmp_path: Path, dtype: str, values: dict[int, float]
) -> None:
    width = 2 if dtype == "BF16" else 1
    data = b"".join(code.to_bytes(width, "little") for code in values)
    told = {"dtype": dtype, "shape": [len(values)], "data_offsets": [0, len(data)]}
    header = json.dumps({"ip/0": told}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (blob,) = read_safetensors(tmp_path / "a").layer("ip").blobs
    np.testing.assert_array_equal(special(blob), special(np.array(list(values.values()))))


def test_every_fp8_is_what_torch_makes_of_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for dtype, kind in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        told = {"dtype": dtype, "shape": [256], "data_offsets": [0, 256]}
        header = json.dumps({"ip/0": told}).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(range(256))
        (tmp_path / "a").write_bytes(content)
        (blob,) = read_safetensors(tmp_path / "a").layer("ip").blobs
        theirs = torch.arange(256, dtype=torch.uint8).view(kind).float().numpy()
        np.testing.assert_array_equal(blob, theirs)


@both_forms
def test_a_full_disk_leaves_no_file_and_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer, read: Reader
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pycaffe_prune.formats.tensors.write_arrays", full)
    monkeypatch.setattr("pycaffe_prune.formats.tensors.write_safetensors_file", full)
    with pytest.raises(PruneError, match="a: the disk is full; nothing was written"):
        write(tmp_path / "a", small_model())
    assert list(tmp_path.iterdir()) == []
