"""Data layers bring what the real Caffe's bring, to the bit; what is random is told elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.engines.torch.data import resident
from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter
from pycaffe_prune.formats.mean import write_mean
from tests.engines.torch.data.datums import (
    batches,
    data_layer,
    encoded,
    floats,
    raw,
    write_lmdb,
)
from tests.parity.conftest import Brought, CaffeData

pytestmark = pytest.mark.real_caffe

CPU = torch.device("cpu")
FORWARDS = 4


@pytest.fixture(params=["resident", "streamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the torch engine to read an LMDB."""
    if request.param == "streamed":
        monkeypatch.setattr(resident, "CPU_BUDGET", 0)


def require_same(ours: Sequence[Sequence[NDArray[np.float32]]], theirs: Brought) -> None:
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.stack(mine), wanted, strict=True)


def our_batches(layer: LayerParameter, phase: int = TEST, seed: int = 1) -> list[Brought]:
    return batches(make_source(layer, phase, CPU, seed), FORWARDS)


def random_images(count: int, shape: tuple[int, int, int], seed: int) -> list[NDArray[np.uint8]]:
    draws = np.random.default_rng(seed)
    return list(draws.integers(0, 256, (count, *shape), np.uint8))


SCALES = st.sampled_from(["1", "0.00390625", "0.017", "-3.3"])


@st.composite
def transforms(draw: st.DrawFn, shape: tuple[int, int, int], folder: Path) -> tuple[str, int]:
    """A transform_param without anything random, and the phase it is for."""
    channels, height, width = shape
    told = [f"scale: {draw(SCALES)}"]
    phase = draw(st.sampled_from([TEST, TRAIN]))
    if phase == TEST and draw(st.booleans()):
        told.append(f"crop_size: {draw(st.integers(1, min(height, width)))}")
    mean = draw(st.sampled_from(["none", "file", "one", "each"]))
    if mean == "file":
        values = np.random.default_rng(draw(st.integers(0, 9))).normal(100, 50, shape)
        write_mean(folder / "mean.binaryproto", values.astype(np.float32))
        told.append(f'mean_file: "{folder / "mean.binaryproto"}"')
    elif mean != "none":
        values = draw(
            st.lists(
                st.floats(0, 255, width=32),
                min_size=1 if mean == "one" else channels,
                max_size=1 if mean == "one" else channels,
            )
        )
        told.extend(f"mean_value: {value!r}" for value in values)
    return " ".join(told), phase


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_lmdb_brings_caffes_batches(
    data: st.DataObject,
    way: None,
    caffe_data: CaffeData,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("lmdb")
    store = data.draw(st.sampled_from(["raw", "float", "png", "color", "gray"]))
    channels = data.draw(
        st.sampled_from([1, 3] if store in ("png", "color", "gray") else [1, 2, 3])
    )
    size = data.draw(st.tuples(st.integers(2, 7), st.integers(2, 7)))
    images = random_images(
        data.draw(st.integers(1, 6)), (channels, *size), data.draw(st.integers(0, 99))
    )
    out_channels = {"color": 3, "gray": 1}.get(store, channels)
    transform, phase = data.draw(transforms((out_channels, *size), folder))
    if store in ("color", "gray"):
        transform += f" force_{store}: true"
    labels = data.draw(st.lists(st.integers(0, 2**20), min_size=len(images), max_size=len(images)))
    write = {"raw": raw, "float": lambda image, label: floats(image / np.float32(7), label)}
    values = [
        write.get(store, encoded)(image, label) for image, label in zip(images, labels, strict=True)
    ]
    layer = data_layer(write_lmdb(folder / "lmdb", values), data.draw(st.integers(1, 9)), transform)
    if data.draw(st.booleans()):
        layer.top.pop()

    require_same(our_batches(layer, phase), caffe_data(layer, phase))


def test_rand_skip_does_nothing_in_a_data_layer(caffe_data: CaffeData, tmp_path: Path) -> None:
    images = random_images(40, (1, 2, 2), 0)
    layer = data_layer(write_lmdb(tmp_path / "lmdb", [raw(image) for image in images]), 3)
    layer.data_param.rand_skip = 30

    require_same(our_batches(layer), caffe_data(layer))


def test_jpeg_images_are_caffes_to_one_level(
    way: None, caffe_data: CaffeData, tmp_path: Path
) -> None:
    smooth = [
        cv2.resize(image.transpose(1, 2, 0), (61, 47), interpolation=cv2.INTER_CUBIC)
        for image in random_images(5, (3, 6, 8), 0)
    ]
    values = [encoded(image.transpose(2, 0, 1), 0, ".jpg") for image in smooth]
    layer = data_layer(write_lmdb(tmp_path / "lmdb", values), 3)

    ours, _ = our_batches(layer)
    theirs, _ = caffe_data(layer)

    # Two builds of OpenCV may decode JPEG by other libraries; PNG is exact everywhere.
    assert np.abs(np.stack(ours) - theirs).max() <= 1


def test_encoded_images_of_many_sizes_are_cut_from_the_middle(
    caffe_data: CaffeData, tmp_path: Path
) -> None:
    images = [random_images(1, (3, 6 + n % 4, 9 - n % 3), n)[0] for n in range(7)]
    values = [encoded(image, n) for n, image in enumerate(images)]
    layer = data_layer(write_lmdb(tmp_path / "lmdb", values), 4, "crop_size: 5")

    require_same(our_batches(layer), caffe_data(layer))


def image_layer(
    folder: Path, images: Sequence[NDArray[np.uint8]], told: str, transform: str = ""
) -> LayerParameter:
    lines = []
    for number, image in enumerate(images):
        name = f"image {number}.png"
        cv2.imwrite(str(folder / name), image.transpose(1, 2, 0))
        lines.append(f"{name} {number * 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    text = (
        'name: "data" type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "{folder / "list.txt"}" root_folder: "{folder}/" {told} }} '
        f"transform_param {{ {transform} }}"
    )
    return text_format.Parse(text, LayerParameter())


@settings(max_examples=20)
@given(data=st.data())
def test_image_files_bring_caffes_batches(
    data: st.DataObject, caffe_data: CaffeData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("images")
    channels = data.draw(st.sampled_from([1, 3]))
    size = data.draw(st.tuples(st.integers(2, 7), st.integers(2, 7)))
    images = random_images(
        data.draw(st.integers(1, 6)), (channels, *size), data.draw(st.integers(0, 99))
    )
    color = data.draw(st.booleans())
    told = f"batch_size: {data.draw(st.integers(1, 9))} is_color: {str(color).lower()}"
    transform, phase = data.draw(transforms((3 if color else 1, *size), folder))
    layer = image_layer(folder, images, told, transform)

    require_same(our_batches(layer, phase), caffe_data(layer, phase))


@settings(max_examples=20)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 40), st.integers(2, 40)), min_size=1, max_size=4),
    new=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 99),
)
def test_resized_image_files_are_caffes(
    sizes: list[tuple[int, int]],
    new: tuple[int, int],
    seed: int,
    caffe_data: CaffeData,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    images = [random_images(1, (3, *size), seed)[0] for size in sizes]
    told = f"batch_size: 3 new_height: {new[0]} new_width: {new[1]}"
    layer = image_layer(tmp_path_factory.mktemp("images"), images, told)

    require_same(our_batches(layer), caffe_data(layer))


@settings(max_examples=20)
@given(
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    width=st.lists(st.integers(1, 4), max_size=3),
    batch=st.integers(1, 15),
    dtype=st.sampled_from(["f4", "f8", "u1", "i8"]),
    seed=st.integers(0, 99),
)
def test_hdf5_files_bring_caffes_batches(
    rows: list[int],
    width: list[int],
    batch: int,
    dtype: str,
    seed: int,
    caffe_data: CaffeData,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, draws = tmp_path_factory.mktemp("hdf5"), np.random.default_rng(seed)
    for number, count in enumerate(rows):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["one"] = (draws.random((count, *width)) * 200).astype(dtype)
            file["two"] = draws.random(count).astype(np.float32)
    names = [str(folder / f"{number}.h5") for number in range(len(rows))]
    (folder / "list.txt").write_text("\n".join(names))
    text = (
        'name: "data" type: "HDF5Data" top: "one" top: "two" '
        f'hdf5_data_param {{ source: "{folder / "list.txt"}" batch_size: {batch} }}'
    )
    layer = text_format.Parse(text, LayerParameter())

    require_same(our_batches(layer), caffe_data(layer))
