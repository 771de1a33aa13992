from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data_prep.digits import build_digits
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import DataError, FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import Datum, LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.net.index_inputs import IndexUse, require_indices
from pycaffe_prune.pruning.verify_input import array_input, lmdb_input, random_input

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ {transform} }}
  data_param {{ source: "{source}" batch_size: 5 backend: LMDB }} }}
layer {{ name: "copy" type: "Power" bottom: "data" top: "copy" }}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs of real digits."""
    folder = tmp_path_factory.mktemp("digits")
    build_digits(folder)
    return folder


def write_lmdb(folder: Path, records: Sequence[bytes]) -> Path:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        for place, record in enumerate(records):
            transaction.put(b"%08d" % place, record)
    return folder


def image(height: int = 2, **fields: object) -> bytes:
    pixels = bytes(range(3 * height * 4))
    datum = Datum(channels=3, height=height, width=4, data=pixels, label=1)
    datum.MergeFrom(Datum(**fields))
    return datum.SerializeToString()


def test_random_input_has_the_shape_the_size_and_the_seed_asked_for() -> None:
    shapes = {"data": (1, 3, 50, 60), "more": (7, 5)}
    made = random_input(4, seed=3, scale=20)(shapes)
    assert {name: array.shape for name, array in made.items()} == {
        "data": (4, 3, 50, 60),
        "more": (4, 5),
    }
    assert made["data"].dtype == np.float32
    assert made["data"].std() == pytest.approx(20, rel=0.02)
    again, other = (random_input(4, seed=seed, scale=20)(shapes) for seed in (3, 4))
    np.testing.assert_array_equal(made["data"], again["data"])
    assert not np.array_equal(made["data"], other["data"])


def test_random_indices_are_valid_for_every_layer_that_takes_them() -> None:
    uses = {
        "word": [IndexUse("a", "Embed", 9), IndexUse("b", "Embed", 5)],
        "rows": [IndexUse("c", "BatchReindex", None)],
    }
    shapes = {"word": (1, 50), "rows": (1,), "x": (1, 50)}
    made = random_input(6, scale=100)(shapes, uses)
    assert set(made["word"].ravel()) == set(range(5))
    assert set(made["rows"]) <= set(range(6))
    assert made["word"].shape == (6, 50)
    assert np.abs(made["x"]).max() > 100


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_array_goes_in_as_it_is(tmp_path: Path, dtype: type[np.generic]) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "data.npy", values)
    found = array_input(tmp_path / "data.npy")({"data": (1, 3, 4)})["data"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)
    assert array_input(tmp_path / "data.npy")({"data": None})["data"].shape == (2, 3, 4)


@pytest.mark.real_caffe
@pytest.mark.parametrize(("transform", "scale", "has_mean", "crop"), [
    ("scale: 0.00390625", 0.00390625, False, 28),
    ('scale: 0.5 mean_file: "{mean}"', 0.5, True, 28),
    ('crop_size: 23 mean_file: "{mean}"', 1, True, 23),
    ("crop_size: 24", 1, False, 24),
])  # fmt: skip
def test_images_go_in_as_a_data_layer_gives_them(
    digits: Path,
    tmp_path: Path,
    caffe_python: Path,
    transform: str,
    scale: float,
    has_mean: bool,
    crop: int,
) -> None:
    mean, source = digits / "mean.binaryproto", digits / "mnist_test_lmdb"
    net = tmp_path / "net.prototxt"
    net.write_text(NET.format(transform=transform.format(mean=mean), source=source))
    write_caffemodel(tmp_path / "net.caffemodel", Caffemodel((Layer(LayerParameter(name="x")),)))
    (expected,) = CaffeEngine(caffe_python, trust=True).forward(
        net, tmp_path / "net.caffemodel", {}, ["copy"]
    )
    images = lmdb_input(source, 5, scale=scale, mean=read_mean(mean) if has_mean else None)
    found = images({"data": (1, 1, crop, crop)})["data"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_float_images_are_read(tmp_path: Path) -> None:
    datum = Datum(channels=1, height=1, width=2, float_data=[0.5, -3])
    folder = write_lmdb(tmp_path / "floats", [datum.SerializeToString()])
    found = lmdb_input(folder, 1)({"data": None})["data"]
    np.testing.assert_array_equal(found, [[[[0.5, -3]]]])


BAD_LMDBS = [
    ([image()], 2, (1, 3, 2, 4), DataError, "holds 1 images, 2 are wanted"),
    ([image(), image(height=3)], 2, None, DataError, "have different sizes"),
    ([image(encoded=True)], 1, None, DataError, "is no image of bytes"),
    ([b"\xff\xff"], 1, None, DataError, "is not a Datum"),
    ([image(width=5)], 1, None, DataError, "an image of 3x2x5 with 24 values"),
    ([image()], 1, (1, 1, 2, 4), SurgeryError, "images are 3x2x4, the net's data blob is 1x1x2x4"),
    ([image()], 1, (1, 3, 9, 9), SurgeryError, "images are 3x2x4, the net's data blob is 1x3x9x9"),
    ([image()], 1, (1, 24), SurgeryError, "images are 3x2x4, the net's data blob is 1x24"),
]


@pytest.mark.parametrize(("records", "count", "shape", "error", "message"), BAD_LMDBS)
def test_an_lmdb_that_does_not_do_is_one_sentence(
    tmp_path: Path,
    records: list[bytes],
    count: int,
    shape: tuple[int, ...] | None,
    error: type[PruneError],
    message: str,
) -> None:
    folder = write_lmdb(tmp_path / "images", records)
    with pytest.raises(error) as caught:
        lmdb_input(folder, count)({"data": shape})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mean_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "images", [image()])
    mean = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(SurgeryError, match="mean is 3x8x8, the images are 3x2x4"):
        lmdb_input(folder, 1, mean=mean)({"data": (1, 3, 2, 4)})


def test_a_folder_that_is_no_lmdb_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read as an LMDB"):
        lmdb_input(tmp_path / "nowhere", 1)({"data": None})
    assert not (tmp_path / "nowhere").exists()


BAD_ARRAYS = [
    (np.zeros((2, 4, 3)), (1, 3, 4), SurgeryError, "is 2x4x3, the data blob 'data' is 1x3x4"),
    (np.zeros((0, 3, 4)), (1, 3, 4), SurgeryError, "is 0x3x4"),
    (np.array(["a"]), None, FormatError, "holds no plain numbers"),
]


@pytest.mark.parametrize(("values", "shape", "error", "message"), BAD_ARRAYS)
def test_an_array_that_does_not_do_is_one_sentence(
    tmp_path: Path,
    values: np.ndarray,
    shape: tuple[int, ...] | None,
    error: type[PruneError],
    message: str,
) -> None:
    np.save(tmp_path / "data.npy", values)
    with pytest.raises(error, match=r"data\.npy") as caught:
        array_input(tmp_path / "data.npy")({"data": shape})
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"not an array", b"\x80\x04N."])
def test_what_is_no_array_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npy").write_bytes(content)
    with pytest.raises(FormatError, match=r"data\.npy: .*; a \.npy array .* is needed"):
        array_input(tmp_path / "data.npy")({"data": None})


def test_real_input_goes_to_nets_with_one_data_blob(tmp_path: Path) -> None:
    for source in (array_input(tmp_path / "x.npy"), lmdb_input(tmp_path, 1)):
        with pytest.raises(SurgeryError, match="data blobs a, b"):
            source({"a": None, "b": None})


def test_random_regions_are_valid_and_one_of_each_image() -> None:
    uses = {"rois": [IndexUse("roi", "ROIPooling", None)]}
    rows = random_input(6)({"data": (1, 3, 8, 8), "rois": (300, 5, 1, 1)}, uses)["rois"]
    assert rows.shape == (6, 5, 1, 1)
    assert rows[:, 0, 0, 0].tolist() == list(range(6))
    require_indices({"rois": rows}, uses)
    with pytest.raises(SurgeryError, match="regions is 6x4; rows of 5"):
        random_input(6)({"rois": (300, 4)}, uses)
