"""Image sets that fit are held whole in the device's memory, one copy in a process."""

import threading
import weakref
from collections import deque
from collections.abc import Hashable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.records import Records
from pycaffe_prune.engines.torch.data.streamed import split
from pycaffe_prune.engines.torch.data.transformer import Transformer
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.datum import Record

__all__ = ["CPU_BUDGET", "ImageSet", "ResidentSource", "load_image_set"]

CPU_BUDGET = 2**30
"""Most bytes that a set may take in main memory."""

_REMEMBERED = 2**27
"""Most bytes of sets in main memory that are kept for the next run of the process."""

_CUDA_SHARE = 4  # a set may take this part (one in ...) of the card's free memory
_CHUNK = 1024  # images read at a time while loading

Item = TypeVar("Item")


class ImageSet:
    """A whole set on one device.

    Attributes:
        images: uint8 or float32, images × channels × height × width.
        labels: float32, one an image.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.images.nbytes + self.labels.nbytes


_loaded: MutableMapping[Hashable, ImageSet] = weakref.WeakValueDictionary()
_remembered: deque[ImageSet] = deque()  # the last one used comes last
_loading = threading.Lock()


def load_image_set(
    records: Records[Item], count: int, first: Record, device: torch.device, key: Hashable
) -> ImageSet | None:
    """Return the set, read now or by another source of this process before.

    Args:
        records: Its images.
        count: How many they are.
        first: The first of them.
        device: Where to hold them.
        key: What tells this set from any other.

    Returns:
        None when it does not fit, or holds images of several shapes or dtypes.

    Raises:
        DataError: An image is damaged.
    """
    with _loading:
        found = _loaded.get((key, device))
        if found is None and count * first.pixels.nbytes <= _budget(device):
            found = _read(records, count, first, device)
            if found is not None:
                _loaded[(key, device)] = found
        if found is not None and device.type == "cpu":
            _remember(found)
        return found


def _remember(used: ImageSet) -> None:
    """Hold a set beyond the sources that use it: to read it anew takes as long as 1,000 steps."""
    if used in _remembered:
        _remembered.remove(used)
    _remembered.append(used)
    while _remembered and sum(each.bytes for each in _remembered) > _REMEMBERED:
        _remembered.popleft()


def _budget(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // _CUDA_SHARE
    return CPU_BUDGET


def _read(
    records: Records[Item], count: int, first: Record, device: torch.device
) -> ImageSet | None:
    pixels = np.empty((count, *first.shape), first.pixels.dtype)
    labels = np.empty(count, np.float32)

    def write(items: Sequence[Item], start: int) -> bool:
        for place, item in enumerate(items, start):
            record = records.decode(item)
            if record.shape != first.shape or record.pixels.dtype != pixels.dtype:
                return False
            pixels[place] = record.pixels
            labels[place] = record.label
        return True

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for start in range(0, count, _CHUNK):
            items = records.fetch(start, min(_CHUNK, count - start))
            jobs = [pool.submit(write, run, start + place) for place, run in split(items, threads)]
            fits = [job.result() for job in jobs]
            if not all(fits):
                return None
    return ImageSet(torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device))


class ResidentSource(Source):
    """Cuts batches out of a set in the device's memory.

    Args:
        held: The set.
        transformer: What is done to its images.
        batch_size: Images in a batch, at least 1.
        tops: 1 for images, 2 for images and labels.
    """

    def __init__(
        self, held: ImageSet, transformer: Transformer, batch_size: int, tops: int
    ) -> None:
        self._held: ImageSet | None = held
        self._transformer = transformer
        self._size, self._tops = batch_size, tops
        self._batch = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of the images, and of the labels if they are a top."""
        return ((self._size, *self._transformer.shape), (self._size,))[: self._tops]

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        if self._held is None:
            raise DataError("a data layer that was closed has no more batches")
        number, size = self._batch, self._size
        images, labels = self._held.images, self._held.labels
        count = len(labels)
        start = number * size % count
        self._batch += 1
        if start + size <= count:
            images, labels = images[start : start + size], labels[start : start + size].clone()
        else:
            places = torch.arange(start, start + size, device=images.device) % count
            images, labels = images[places], labels[places]
        draws = self._transformer.draw(number, size)
        parts = self._transformer.cut_all(images, draws)
        return (self._transformer.normalised(parts, draws), labels)[: self._tops]

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`. The set is given up when no other source holds it."""
        self._held = None
