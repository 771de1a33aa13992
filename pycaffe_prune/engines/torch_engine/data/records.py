"""What data layers read: labelled images, one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.net.axes import Shape

__all__ = ["Pixels", "Record", "Records", "channels_first"]

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Item = TypeVar("Item")


def channels_first(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image of OpenCV's, of dtype uint8, as channels × height × width; a view."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


@dataclass(frozen=True, slots=True)
class Record:
    """A labelled image."""

    pixels: Pixels
    """channels × height × width; colour channels in the order B, G, R."""
    label: int

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        return self.pixels.shape


class Records(ABC, Generic[Item]):
    """An endless series of images: the set, pass after pass.

    Reading is split in two: `fetch` goes on in order and belongs to one thread at a time, `decode`
    does the work and may run in many threads.
    """

    @property
    @abstractmethod
    def where(self) -> str:
        """The layer and its data, to begin a sentence with."""

    @abstractmethod
    def fetch(self, start: int, count: int) -> Sequence[Item]:
        """Return ``count`` images as they are stored, from number ``start`` of the series.

        Raises:
            DataError: The data are damaged, or gone.
        """

    @abstractmethod
    def decode(self, item: Item) -> Record:
        """Return the image.

        Raises:
            DataError: The image is damaged, or gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files. Closing twice is fine."""
