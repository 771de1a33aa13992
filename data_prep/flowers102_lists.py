"""Labels, split and order of Oxford 102 category flowers, from its two MATLAB files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.manifest import SplitName
from data_prep.mat_file import read_mat
from pycaffe_prune.errors import DataError

__all__ = ["LABELS_FILE", "SPLIT_FILE", "ListedImage", "Parts", "image_lists", "read_parts"]

LABELS_FILE = "imagelabels.mat"
SPLIT_FILE = "setid.mat"

_SEED = 777
_PARTS = ("trnid", "tstid", "valid")  # in the order in which the recipe draws
# The paper trains on the official test part, and tests on the official training part.
_PART_OF: Mapping[SplitName, str] = {"train": "tstid", "test": "trnid"}


@dataclass(frozen=True)
class Parts:
    """The official labels and split.

    Attributes:
        labels: Of image 1, 2, …: whole numbers from 0.
        numbers: Numbers of the images (from 1) in ``trnid``, ``valid`` and ``tstid``.
    """

    labels: NDArray[np.int64]
    numbers: Mapping[str, NDArray[np.int64]]

    def part_of(self, number: int) -> str:
        """Return "train" or "test" as the paper uses the image, or "unused"."""
        for split, part in _PART_OF.items():
            if number in self.numbers[part]:
                return split
        return "unused"


@dataclass(frozen=True)
class ListedImage:
    """A line of an image list: which image, and its label (from 0)."""

    number: int
    label: int

    @property
    def name(self) -> str:
        """Its path inside the official archive."""
        return f"jpg/image_{self.number:05}.jpg"


def read_parts(labels: Path, split: Path) -> Parts:
    """Read ``imagelabels.mat`` and ``setid.mat``.

    Raises:
        DataError: A file is missing, damaged, or not what it should be.
    """
    classes = _row(labels, "labels")
    if classes.min() < 1:
        raise DataError(f"{labels}: has a label {classes.min()}; labels count from 1")
    numbers = {part: _row(split, part) for part in _PARTS}
    every = np.concatenate(list(numbers.values()))
    if every.min() < 1 or every.max() > len(classes):
        raise DataError(
            f"{split}: names images {every.min()} to {every.max()}, but {labels.name} has labels "
            f"for 1 to {len(classes)}: they do not belong together"
        )
    if len(np.unique(every)) != len(every):
        raise DataError(f"{split}: has an image in two parts, or twice in one. Get the file again.")
    return Parts(classes - 1, numbers)


def image_lists(parts: Parts) -> dict[SplitName, list[ListedImage]]:
    """Return the images of the paper's two splits in the order of the Model Zoo recipe.

    The recipe's script shuffles each official part with NumPy's `RandomState(777).permutation`,
    drawn for ``trnid``, ``tstid`` and ``valid`` in turn.
    """
    random = np.random.RandomState(_SEED)
    shuffled = {
        part: parts.numbers[part][random.permutation(len(parts.numbers[part]))] for part in _PARTS
    }
    return {
        split: [
            ListedImage(number, int(parts.labels[number - 1])) for number in shuffled[part].tolist()
        ]
        for split, part in _PART_OF.items()
    }


def _row(path: Path, name: str) -> NDArray[np.int64]:
    """Return the whole numbers of one variable, a matrix of one row."""
    values = read_mat(path).get(name)
    if values is None or values.ndim != 2 or values.shape[0] != 1 or not values.size:
        shape = "nothing" if values is None else f"shape {values.shape}"
        raise DataError(f"{path}: '{name}' is {shape}, not one row of numbers. Is it {path.name}?")
    if values.dtype.kind not in "iu":
        raise DataError(f"{path}: '{name}' holds {values.dtype}, not whole numbers")
    return np.asarray(values[0], np.int64)
