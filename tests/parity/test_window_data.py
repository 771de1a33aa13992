"""Windows are cut and warped as the real Caffe does; which ones are drawn is told elsewhere."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter
from pycaffe_prune.formats.mean import write_mean
from tests.engines.torch.data.datums import batches
from tests.parity.conftest import CaffeData

pytestmark = pytest.mark.real_caffe


def window_list(folder: Path, images: Sequence[tuple[int, int]], windows: Sequence[str]) -> Path:
    """Random images of these heights and widths, each with one window."""
    lines = []
    for number, (size, window) in enumerate(zip(images, windows, strict=True)):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        lines.append(f"# {number}\n{number}.png\n3\n{size[0]}\n{size[1]}\n1\n{window}\n")
    (folder / "windows.txt").write_text("".join(lines))
    return folder / "windows.txt"


def window_layer(source: Path, told: str, transform: str) -> LayerParameter:
    text = (
        'name: "data" type: "WindowData" top: "data" top: "label" '
        f'window_data_param {{ source: "{source}" root_folder: "{source.parent}/" {told} }} '
        f"transform_param {{ {transform} }}"
    )
    return text_format.Parse(text, LayerParameter())


@st.composite
def layers(draw: st.DrawFn, folder: Path) -> LayerParameter:
    """One window of an object and one of the background: whatever is drawn is the same."""
    sizes, windows = [], []
    for overlap in (0.75, 0.25):
        height, width = draw(st.tuples(st.integers(2, 30), st.integers(2, 30)))
        columns = sorted(draw(st.tuples(*[st.integers(0, width - 1)] * 2)))
        rows = sorted(draw(st.tuples(*[st.integers(0, height - 1)] * 2)))
        sizes.append((height, width))
        windows.append(f"7 {overlap} {columns[0]} {rows[0]} {columns[1]} {rows[1]}")
    crop = draw(st.integers(1, 9))
    pad = draw(st.integers(0, (crop - 1) // 2))
    told = (
        f"batch_size: {draw(st.integers(1, 5))} fg_fraction: {draw(st.sampled_from([0, 0.5, 1]))} "
        f"context_pad: {pad} crop_mode: '{draw(st.sampled_from(['warp', 'square']))}' "
        f"scale: {draw(st.sampled_from([1, 0.5, -2]))} "
        f"cache_images: {str(draw(st.booleans())).lower()} fg_threshold: 0.5 bg_threshold: 0.5"
    )
    mean = draw(st.sampled_from(["", "mean_value: 99.5", "file"]))
    mean += draw(st.sampled_from(["", " scale: 3"]))  # which Caffe passes over
    if mean.startswith("file"):
        values = np.random.default_rng(3).normal(100, 30, (3, 11, 12)).astype(np.float32)
        write_mean(folder / "mean.binaryproto", values)
        mean = f'mean_file: "{folder / "mean.binaryproto"}"'
    return window_layer(window_list(folder, sizes, windows), told, f"crop_size: {crop} {mean}")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_are_warped_as_caffe_warps_them(
    data: st.DataObject, caffe_data: CaffeData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layer = data.draw(layers(tmp_path_factory.mktemp("windows")))
    try:
        ours = batches(make_source(layer, TEST, torch.device("cpu"), 1), 1)
    except DataError as error:  # OpenCV ends the real Caffe there
        assume("would be warped to" not in str(error))
        raise
    theirs = caffe_data(layer, forwards=1)
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.stack(mine), wanted, strict=True)
