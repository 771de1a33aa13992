"""scikit-learn's small handwritten digits in MNIST's shape: a sample that needs no download."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set, in_batches
from data_prep.manifest import Manifest
from data_prep.mnist import LMDB_NAMES
from pycaffe_prune.errors import DataError
from pycaffe_prune.screen import Screen

__all__ = ["build_digits"]

_COUNT = 1797
_TRAIN = 1500
_SIDE = 28
_LARGEST = 16  # the data set's values count the set pixels in 4×4 blocks of a bitmap


def build_digits(out: Path, *, force: bool = False, console: Console | None = None) -> Manifest:
    """Build the digits' LMDBs and mean image in the folder ``out``.

    The 1,797 images of 8×8 are scaled to 0..255 and resized to 28×28; the first 1500 are the
    training set, the last 297 the test set. The LMDBs are named like MNIST's, so that the same
    prototxt files read them. The manifest says that it is a sample: accuracies are not MNIST's.

    Args:
        out: The data set's folder; made when missing.
        force: Build again what is already there.
        console: Where to show progress (default: the standard error stream).

    Returns:
        The manifest, which is also in ``out``.

    Raises:
        DataError: scikit-learn is not installed, or ``out`` holds something else or cannot be
            written.
    """
    recipe = Recipe(
        name="digits",
        source="scikit-learn digits",
        is_sample=True,
        lmdbs=LMDB_NAMES,
        counts={"train": _TRAIN, "test": _COUNT - _TRAIN},
        shape=(1, _SIDE, _SIDE),
        load=_load,
    )
    return build_data_set(out, recipe, force=force, console=console or Screen(stderr=True))


def _load() -> Content:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed; "
            "run `pip install 'pycaffe-prune[sample]'`"
        ) from error
    bunch = load_digits()
    images = np.stack([_enlarged(image) for image in bunch.images])[:, np.newaxis]
    return Content(
        {
            "train": in_batches(images[:_TRAIN], bunch.target[:_TRAIN]),
            "test": in_batches(images[_TRAIN:], bunch.target[_TRAIN:]),
        }
    )


def _enlarged(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an 8×8 image with values 0..16 as a 28×28 image with values 0..255."""
    scaled = np.asarray(image * (255 / _LARGEST), dtype=np.float32)
    resized = cv2.resize(scaled, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    return np.rint(resized).astype(np.uint8)
