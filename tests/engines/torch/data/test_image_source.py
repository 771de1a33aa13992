from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.data.image_source import ImageFiles, image_source
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from tests.engines.torch.data.datums import batches

CPU = torch.device("cpu")


def layer_of(source: Path, told: str = "") -> LayerParameter:
    text = (
        'name: "data" type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "{source}" {told} }}'
    )
    return text_format.Parse(text, LayerParameter())


def listed(folder: Path, count: int) -> Path:
    lines = []
    for label in range(count):
        cv2.imwrite(str(folder / f"{label}.png"), np.full((2, 3, 3), label, np.uint8))
        lines.append(f"{folder}/{label}.png {label}")
    (folder / "list.txt").write_text("\n".join(lines))
    return folder / "list.txt"


def labels_of(layer: LayerParameter, forwards: int, seed: int = 1, seek: int = 0) -> list[float]:
    source = image_source(layer, TRAIN, CPU, seed)
    source.seek(seek)
    pixels, labels = batches(source, forwards)
    np.testing.assert_array_equal(np.concatenate(pixels)[:, 0, 0, 0], np.concatenate(labels))
    return np.concatenate(labels).tolist()


@settings(max_examples=10)
@given(count=st.integers(1, 6), batch=st.integers(1, 7), seek=st.integers(0, 12))
def test_each_pass_is_another_order_of_all_images_and_can_be_gone_to(
    count: int, batch: int, seek: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = listed(tmp_path_factory.mktemp("images"), count)
    layer = layer_of(source, f"shuffle: true batch_size: {batch}")
    walked = labels_of(layer, seek + 2)
    assert labels_of(layer, 2, seek=seek) == walked[seek * batch :]
    for start in range(0, len(walked) - count + 1, count):
        assert sorted(walked[start : start + count]) == list(range(count))


def test_orders_differ_from_pass_to_pass_and_from_seed_to_seed(tmp_path: Path) -> None:
    layer = layer_of(listed(tmp_path, 8), "shuffle: true batch_size: 8")
    found = [tuple(labels_of(layer, 1, seed, seek)) for seed in (1, 2) for seek in range(10)]
    assert len(set(found)) == 20


def test_rand_skip_leaves_out_the_first_images_of_the_first_pass(tmp_path: Path) -> None:
    layer = layer_of(listed(tmp_path, 5), "rand_skip: 4 batch_size: 10")
    starts = set()
    for seed in range(40):
        found = labels_of(layer, 1, seed)
        starts.add(found[0])
        assert found == [(found[0] + place) % 5 for place in range(10)]
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("text", "told", "sentence"),
    [
        ("", "", "is empty"),
        ("a.png 1\n\nb.png 2\n", "", "line 2: is ''"),
        ("a.png", "", "line 1: is 'a.png'"),
        ("a.png one", "", "line 1"),
        ("no.png 1\n", "", "no.png is not there or is damaged"),
        ("a.png 1\n", "new_height: 5", "new_height is 5, new_width is 0; give both or none"),
        ("a.png 1\n", "rand_skip: 1000", "may skip all"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, told: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=f"layer 'data'.*{sentence}"):
        image_source(layer_of(tmp_path / "list.txt", told), TRAIN, CPU, 1)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list .*nowhere cannot be read"):
        image_source(layer_of(tmp_path / "nowhere"), TRAIN, CPU, 1)


def test_an_image_that_goes_missing_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    source = image_source(layer_of(listed(tmp_path, 3)), TRAIN, CPU, 1)
    (tmp_path / "1.png").unlink()
    source.next()
    with pytest.raises(DataError, match=r"1\.png is not there or is damaged"):
        source.next()
    source.close()


def test_names_may_have_spaces_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a b.png 1\r\nc.png -2\r\n")
    files = ImageFiles(layer_of(tmp_path / "list.txt", 'root_folder: "/x/"'), 1).fetch(0, 2)
    assert [(str(file.path), file.label) for file in files] == [("/x/a b.png", 1), ("/x/c.png", -2)]
