"""What data layers read: labelled images, one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from pycaffe_prune.formats.datum import Record

__all__ = ["Records"]

Item = TypeVar("Item")


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
