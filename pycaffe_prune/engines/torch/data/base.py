"""What a data layer is to the net: batches, one after the other, from any place on."""

from abc import ABC, abstractmethod

from torch import Tensor

from pycaffe_prune.formats.axes import Shape

__all__ = ["Source"]


class Source(ABC):
    """Where the batches of one data layer come from.

    Batch ``b`` of a source is the same whenever it is asked for: what is drawn at random (crops,
    mirrors, noise) depends on the seed and on ``b`` only, so that a resumed run sees what an
    uninterrupted one would.
    """

    @property
    @abstractmethod
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of each top."""

    @abstractmethod
    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch, one float32 tensor a top, on the net's device.

        Raises:
            DataError: The data are damaged, or gone.
        """

    @abstractmethod
    def seek(self, batch: int) -> None:
        """Go to the batch with this number, counted from 0 as if never wrapped."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files, threads and memory. Closing twice is fine."""
