"""Windows with their surroundings, and what is refused; predictions are twins."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe import TEST, Classifier, Detector, Net
from pycaffe_prune.pycaffe import layers as L  # noqa: N812 (NetSpec's own habit)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A net of images of 3 × 8 × 8 that gives each channel's sum, and its weights."""
    folder = tmp_path_factory.mktemp("detector")
    data = L.Input(shape={"dim": [2, 3, 8, 8]})
    sums = L.Reduction(L.Scale(data, axis=0, num_axes=0), axis=2)
    (folder / "net.prototxt").write_text(str(sums.to_proto()))
    net = Net(str(folder / "net.prototxt"), TEST)
    net.params["Scale1"][0].data[...] = 1
    net.save(str(folder / "net.caffemodel"))
    return str(folder / "net.prototxt"), str(folder / "net.caffemodel")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((20, 30, 3), 51, np.uint8))
    return path


MEAN = np.array([0.1, 0.2, 0.3])


def test_beyond_the_image_is_the_mean(files: tuple[str, str]) -> None:
    detector = Detector(*files, mean=MEAN, channel_swap=(2, 1, 0), context_pad=2)
    crop = detector.crop(np.full((20, 30, 3), 0.2, np.float32), (0, 0, 9, 9))
    assert crop.shape == (8, 8, 3)
    assert np.allclose(crop[:2], MEAN[::-1])
    assert np.allclose(crop[:, :2], MEAN[::-1])
    assert np.allclose(crop[2:, 2:], 0.2)


def test_a_window_within_the_image_has_its_own_surroundings(files: tuple[str, str]) -> None:
    image = np.zeros((40, 40, 3), np.float32)
    image[15:24, 15:24] = 1
    crop = Detector(*files, context_pad=2).crop(image, np.array([15, 15, 23, 23]))
    assert crop[3:5, 3:5].min() > 0.99
    assert crop[0].max() < 0.01


def test_each_window_has_its_prediction(files: tuple[str, str], picture: Path) -> None:
    windows = [(0, 0, 5, 5), (3, 4, 20, 30), (1, 1, 2, 2)]
    found = Detector(*files).detect_windows(iter([(picture, windows), (picture, [])]))
    assert [each["window"] for each in found] == windows
    assert {each["filename"] for each in found} == {picture}
    assert np.allclose([each["prediction"] for each in found], 0.2 * 64)
    assert Detector(*files).detect_windows([]) == []


@pytest.mark.parametrize("context_pad", [None, 1])
def test_a_window_outside_the_image_is_refused(
    files: tuple[str, str], context_pad: int | None
) -> None:
    detector = Detector(*files, context_pad=context_pad)
    with pytest.raises(PruneError, match=r"window \[30, 3, 60, 9\].* image of 20 × 30"):
        detector.crop(np.ones((20, 30, 3)), (30, 3, 60, 9))


def test_surroundings_that_leave_no_place_are_refused(files: tuple[str, str]) -> None:
    with pytest.raises(PruneError, match="context_pad 4 leaves nothing of an input 8 wide"):
        Detector(*files, context_pad=4)


def test_selective_search_is_refused_in_a_sentence(files: tuple[str, str]) -> None:
    with pytest.raises(PruneError, match=r"MATLAB.*windows of a\.png, b\.png to detect_windows"):
        Detector(*files).detect_selective_search(["a.png", "b.png"])


def test_images_smaller_than_the_net_are_refused(files: tuple[str, str]) -> None:
    classifier = Classifier(*files, image_dims=(8, 7))
    for oversample in (True, False):
        with pytest.raises(PruneError, match=r"8 × 7|crops of 8 × 8"):
            classifier.predict([np.zeros((9, 9, 3))], oversample)
