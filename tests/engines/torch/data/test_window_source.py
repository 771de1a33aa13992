"""Which windows a batch has, and what a list must be; how they are warped: tests/parity."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.data.window_source import WindowSource
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

HEAD = "# 0 a.png 3 8 9 3\n"
WINDOWS = "4 0.9 0 0 3 3\n5 0.5 2 2 8 7\n9 0.4 1 1 2 2\n"


def source_of(folder: Path, told: str = "", transform: str = "", text: str = HEAD + WINDOWS):
    pixels = np.random.default_rng(1).integers(1, 256, (8, 9, 3), np.uint8)
    cv2.imwrite(str(folder / "a.png"), pixels)
    (folder / "windows.txt").write_text(text)
    layer = text_format.Parse(
        'name: "data" type: "WindowData" top: "data" top: "label" window_data_param { '
        f'source: "{folder / "windows.txt"}" root_folder: "{folder}/" batch_size: 20 {told} }} '
        f"transform_param {{ {transform or 'crop_size: 6'} }}",
        LayerParameter(),
    )
    return WindowSource(layer, torch.device("cpu"), 1)


def test_a_batch_has_its_share_of_objects_and_each_of_their_windows(tmp_path: Path) -> None:
    source = source_of(tmp_path, "fg_fraction: 0.6")
    labels = [source.next()[1] for _ in range(10)]
    for batch in labels:
        assert (batch[:8] == 0).all()
        assert (batch[8:] > 0).all()
    assert set(torch.cat(labels).tolist()) == {0, 4, 5}
    assert not torch.equal(labels[0], labels[1])
    source.seek(3)
    assert torch.equal(source.next()[1], labels[3])


@pytest.mark.parametrize("told", ["", 'context_pad: 1 crop_mode: "square"'])
def test_about_half_are_mirrored_with_what_is_around_them(tmp_path: Path, told: str) -> None:
    plain, _ = source_of(tmp_path, told + " fg_fraction: 0").next()
    mirrored = source_of(tmp_path, told + " fg_fraction: 0", "crop_size: 6 mirror: true")
    images = torch.cat([mirrored.next()[0] for _ in range(20)])
    is_plain = (images == plain[0]).flatten(1).all(1)
    assert torch.equal(images[~is_plain], plain[:1].flip(3).expand_as(images[~is_plain]))
    assert 150 < is_plain.sum() < 250


def test_a_window_at_an_edge_has_zeros_where_the_image_ends(tmp_path: Path) -> None:
    text = HEAD.replace("3\n", "2\n") + "1 1 0 0 1 1\n2 0 7 6 8 7\n"
    data, _ = source_of(tmp_path, "context_pad: 2 fg_fraction: 0.5", text=text).next()
    corner, other = data[-1], data[0]
    assert not corner[:, :2].any()
    assert not corner[:, :, :2].any()
    assert corner[:, 2:, 2:].all()
    assert not other[:, -1].any()
    assert not other[:, :, -1].any()


@pytest.mark.parametrize(
    ("told", "transform", "text", "sentence"),
    [
        ("", "mirror: true", HEAD + WINDOWS, "no crop_size"),
        ("context_pad: 3", "", HEAD + WINDOWS, "context_pad 3 .* crop_size 6"),
        ("fg_fraction: 1.5", "", HEAD + WINDOWS, "fg_fraction 1.5 is not within 0 and 1"),
        ("", "crop_size: 6 mean_value: [1, 2]", HEAD + WINDOWS, "2 mean_value for 3 channels"),
        ("fg_threshold: 1.5", "", HEAD + WINDOWS, "no windows for fg_threshold"),
        ("bg_threshold: 0.1", "", HEAD + WINDOWS, "no windows for bg_threshold"),
        ("", "", "", "no windows for fg_threshold"),
        ("", "", "# 0 a.png 3 8", "damaged: '# 0 a.png 3 8' is not '# number path"),
        ("", "", HEAD + WINDOWS[:-8], "ends within the windows of a.png"),
        ("", "", HEAD.replace("png 3", "png 1") + WINDOWS, "a.png has 1 channels"),
        ("", "", HEAD.replace("# 0", "# 1") + WINDOWS, "number 1 and names 1; count them from 0"),
        ("", "", HEAD + WINDOWS.replace("4 0.9", "0 0.9"), "an object with label 0"),
        ("", "", HEAD + WINDOWS.replace("0 0 3 3", "0 0 x 3"), "damaged: .*'x'"),
    ],
)
def test_what_caffe_cannot_read_is_one_sentence(
    tmp_path: Path, told: str, transform: str, text: str, sentence: str
) -> None:
    with pytest.raises(DataError, match=rf"layer 'data' \(WindowData\):? .*{sentence}") as raised:
        source_of(tmp_path, told, transform, text)
    assert "\n" not in str(raised.value)


def test_windows_and_images_that_are_not_there_are_named(tmp_path: Path) -> None:
    for told in ("", "context_pad: 2"):
        source = source_of(tmp_path, told, text=HEAD + WINDOWS.replace("1 1 2 2", "20 1 22 2"))
        with pytest.raises(DataError, match=r"window 20 1 22 2 of .*a.png does not lie in .* 8x9"):
            source.next()
    narrow = HEAD + WINDOWS.replace("1 1 2 2", "8 0 8 7")
    source = source_of(tmp_path, 'crop_mode: "square"', "crop_size: 1", narrow)
    with pytest.raises(DataError, match="would be warped to 1x0 pixels"):
        source.next()
    source = source_of(tmp_path, "cache_images: true")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.png is not there or is damaged"):
        source.next()
