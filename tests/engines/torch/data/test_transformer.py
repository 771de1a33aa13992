from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.engines.torch.data.transformer import Transformer
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter
from pycaffe_prune.formats.mean import write_mean

CPU = torch.device("cpu")


def transformer(
    told: str, shape: tuple[int, int, int], phase: int = TRAIN, seed: int = 1
) -> Transformer:
    text = f'name: "data" type: "Data" transform_param {{ {told} }}'
    return Transformer(text_format.Parse(text, LayerParameter()), phase, shape, CPU, seed)


def numbered(shape: tuple[int, int, int], images: int) -> NDArray[np.float32]:
    """Images of which no two pixels are alike."""
    count = images * int(np.prod(shape))
    return np.arange(count, dtype=np.float32).reshape(images, *shape)


def places(cut: NDArray[np.float32], shape: tuple[int, int, int]) -> tuple[int, int, bool]:
    """Where a cut of a numbered image comes from; fails when it is no cut of it."""
    channels, height, width = shape
    mirrored = bool(cut[0, 0, -1] < cut[0, 0, 0])
    straight = cut[:, :, ::-1] if mirrored else cut
    top, left = divmod(int(straight[0, 0, 0]) % (height * width), width)
    _, high, wide = cut.shape
    image = np.arange(channels * height * width, dtype=np.float32).reshape(shape)
    found = straight - straight[0, 0, 0] + top * width + left
    np.testing.assert_array_equal(found, image[:, top : top + high, left : left + wide])
    return top, left, mirrored


def test_every_crop_and_mirror_comes_about_equally_often() -> None:
    shape, count = (2, 5, 6), 12_000
    made = transformer("crop_size: 3 mirror: true", shape)
    cuts = made.cut_all(torch.from_numpy(numbered(shape, 1)).expand(count, -1, -1, -1), _all(count))

    found = [places(cut, shape) for cut in cuts.numpy()]

    kinds, times = np.unique(found, axis=0, return_counts=True)
    assert len(kinds) == 3 * 4 * 2
    assert np.abs(times / (count / 24) - 1).max() < 0.25  # 5 standard deviations


def _all(count: int) -> NDArray[np.int64]:
    drawn = transformer("crop_size: 3 mirror: true", (2, 5, 6)).draw(0, count)
    assert drawn is not None
    return drawn


@settings(max_examples=60)
@given(
    crop=st.integers(0, 4),
    mirror=st.booleans(),
    phase=st.sampled_from([TRAIN, TEST]),
    mean=st.booleans(),
    seed=st.integers(0, 99),
    images=st.integers(1, 5),
)
def test_one_by_one_all_at_once_and_by_kernel_are_the_same(
    crop: int,
    mirror: bool,
    phase: int,
    mean: bool,
    seed: int,
    images: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shape = (3, 4, 6)
    told = f"scale: 0.3 crop_size: {crop} mirror: {str(mirror).lower()} "
    values = np.random.default_rng(seed).normal(90, 30, shape).astype(np.float32)
    if mean:
        path = tmp_path_factory.mktemp("mean") / "mean.binaryproto"
        write_mean(path, values)
        told += f'mean_file: "{path}"'
    made = transformer(told, shape, phase, seed)
    held, draws = numbered(shape, images), made.draw(7, images)
    assert (draws is None) == (not mirror and not (crop and phase == TRAIN))

    singly = [
        made.cut(image, None if draws is None else draws[place]) for place, image in enumerate(held)
    ]
    centred = held - values if mean else held
    wanted = [
        made.cut(image, None if draws is None else draws[place])
        for place, image in enumerate(centred)
    ]

    cuts = made.cut_all(torch.from_numpy(held), draws)
    np.testing.assert_array_equal(cuts.numpy(), np.stack(singly))
    np.testing.assert_array_equal(
        made.normalised(cuts, draws).numpy(), np.stack(wanted) * np.float32(0.3)
    )
    if draws is not None:
        gathered = made._gathered(torch.from_numpy(held), draws)
        np.testing.assert_array_equal(gathered.numpy(), np.stack(singly))


def test_what_is_drawn_depends_on_seed_and_batch() -> None:
    one, other = (transformer("mirror: true", (1, 2, 2), TRAIN, seed) for seed in (1, 2))
    drawn = [made.draw(batch, 8) for made in (one, other) for batch in (0, 1)]
    assert len({np.asarray(draws).tobytes() for draws in drawn}) == 4
    np.testing.assert_array_equal(drawn[1], one.draw(1, 8))


def test_values_are_new_memory() -> None:
    made = transformer("", (1, 2, 2))
    held = torch.zeros(3, 1, 2, 2)
    made.normalised(made.cut_all(held, None), None).add_(1)
    assert not held.any()


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("crop_size: 5", "crop_size 5 does not fit into an image of 3x4x6"),
        ("mean_value: 1 mean_value: 2", "2 mean_value for images of 3 channels"),
        ('mean_value: 1 mean_file: "mean"', "mean_file and mean_value; remove one"),
    ],
)
def test_settings_that_do_not_fit_are_refused(told: str, sentence: str) -> None:
    with pytest.raises(DataError, match=f"layer 'data'.*{sentence}"):
        transformer(told, (3, 4, 6))


def test_a_mean_of_other_images_is_refused(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 4, 5), np.float32))
    told = f'mean_file: "{tmp_path / "mean.binaryproto"}"'
    with pytest.raises(DataError, match=r"3x4x6, the mean image .* is 3x4x5"):
        transformer(told, (3, 4, 6))


def test_a_mean_that_is_not_there_is_named() -> None:
    with pytest.raises(FormatError, match="nowhere"):
        transformer('mean_file: "nowhere"', (3, 4, 6))


@pytest.mark.parametrize(
    ("told", "shape"),
    [("", (3, 4, 7)), ("crop_size: 4", (1, 4, 6)), ("crop_size: 4", (3, 3, 6))],
)
def test_an_image_unlike_the_first_is_refused(told: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="x".join(map(str, shape))):
        transformer(told, (3, 4, 6)).require_fitting(shape)


def test_a_larger_image_can_be_cut() -> None:
    transformer("crop_size: 4", (3, 4, 6)).require_fitting((3, 9, 9))
