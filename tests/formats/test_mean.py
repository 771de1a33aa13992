import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import BlobProto
from pycaffe_prune.formats.mean import read_mean, write_mean, write_mean_npy

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

means = hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(mean=means, write=st.sampled_from([write_mean, write_mean_npy]))
def test_what_is_written_is_read_back(
    tmp_path: Path, mean: np.ndarray, write: Callable[[Path, np.ndarray], None]
) -> None:
    write(tmp_path / "mean", mean)
    found = read_mean(tmp_path / "mean")
    assert found.dtype == np.float32
    assert found.shape == mean.shape
    np.testing.assert_array_equal(found, mean)  # protobuf may change a NaN's payload


def test_the_binaryproto_is_a_blob_with_the_legacy_dimensions(tmp_path: Path) -> None:
    mean = np.random.default_rng(2).random((3, 4, 5), dtype=np.float32)
    write_mean(tmp_path / "mean.binaryproto", mean)
    blob = BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 4, 5)
    assert not blob.HasField("shape")
    assert np.array_equal(np.array(blob.data, np.float32).reshape(3, 4, 5), mean)
    assert [path.name for path in tmp_path.iterdir()] == ["mean.binaryproto"]


def test_the_npy_is_what_numpy_loads(tmp_path: Path) -> None:
    mean = np.random.default_rng(2).random((3, 4, 5), dtype=np.float32)
    write_mean_npy(tmp_path / "mean.npy", mean[:, ::-1])
    found = np.load(tmp_path / "mean.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, mean[:, ::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["mean.npy"]


def test_both_files_of_ilsvrc12_hold_the_same_mean_to_the_last_bit(data_dir: Path) -> None:
    binary = read_mean(data_dir / "ilsvrc12" / "imagenet_mean.binaryproto")
    text = read_mean(data_dir / "ilsvrc12" / "ilsvrc_2012_mean.npy")
    assert binary.shape == text.shape == (3, 256, 256)
    assert binary.tobytes() == text.tobytes()
    np.testing.assert_allclose(binary.mean((1, 2)), [104.007, 116.669, 122.679], atol=1e-3)


@pytest.mark.real_caffe
def test_the_real_caffe_reads_the_same_array(
    run_caffe: Callable[..., None], data_dir: Path, tmp_path: Path
) -> None:
    ours = np.random.default_rng(3).random((2, 5, 4), dtype=np.float32)
    write_mean(tmp_path / "ours", ours)
    for path, expected in (
        (tmp_path / "ours", ours),
        *(
            (path, read_mean(path))
            for path in (
                data_dir / "ilsvrc12" / "imagenet_mean.binaryproto",
                data_dir / "zoo" / "cifar10_quick" / "mean.binaryproto",
            )
        ),
    ):
        run_caffe("blob", path, "blob.npz", cwd=tmp_path)
        with np.load(tmp_path / "blob.npz") as theirs:
            assert theirs["blob"].shape == (1, *expected.shape)
            np.testing.assert_array_equal(theirs["blob"][0], expected)


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 2, 3, 1)])
def test_other_spellings_of_an_image_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(6, dtype=np.float64).reshape(shape)
    blob = BlobProto(double_data=values.ravel())
    blob.shape.dim.extend(shape)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    np.save(tmp_path / "mean.npy", values)
    for name in ("mean.binaryproto", "mean.npy"):
        found = read_mean(tmp_path / name)
        assert found.dtype == np.float32
        assert np.array_equal(found, values.reshape(2, 3, 1))


def saved(values: np.ndarray, folder: Path) -> bytes:
    np.save(folder / "values.npy", values, allow_pickle=True)
    return (folder / "values.npy").read_bytes()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((3, 4), np.float32), "has shape 3x4 instead of channels x height x width"),
        (np.zeros((2, 3, 4, 5), np.float32), "has shape 2x3x4x5 instead"),
        (np.zeros((3, 0, 5)), "."),
        (np.float64(3), r"has shape \(\) instead"),
        (np.zeros((3, 4, 5), np.uint8), "holds uint8 instead of float32"),
        (np.array([{"a": 1}], object), "holds no plain numbers"),
    ],
)
def test_an_npy_that_is_no_image_is_refused(
    tmp_path: Path, values: np.ndarray, sentence: str
) -> None:
    path = tmp_path / "mean"
    path.write_bytes(saved(values, tmp_path))
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; a mean image .* is needed"):
        read_mean(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x93NUMPY", "is no NumPy array"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':}", "holds no plain numbers"),
        (b"text", "."),
        (BlobProto(num=1, channels=1, height=2, width=2, data=[1]).SerializeToString(), "1 values"),
        (BlobProto(data=[1]).SerializeToString(), r"has shape \(\) instead"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "mean"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; a mean image .* is needed"):
        read_mean(path)


@pytest.mark.parametrize("write", [write_mean, write_mean_npy])
def test_damaged_bytes_are_read_or_refused(
    tmp_path: Path, write: Callable[[Path, np.ndarray], None]
) -> None:
    path = tmp_path / "mean"
    write(path, np.ones((3, 2, 2), np.float32))
    content = path.read_bytes()
    pick = random.Random(6)  # noqa: S311 -- no secret
    refused = 0
    for number in range(1500):
        damaged = bytearray(content[: pick.randrange(len(content))] if number % 3 else content)
        for at in pick.choices(range(len(damaged)), k=pick.randint(0, 4)) if damaged else ():
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            mean = read_mean(path)
        except FormatError:
            refused += 1
        else:
            assert mean.ndim == 3
            assert mean.dtype == np.float32
    assert 500 < refused < 1500
