"""Batches of images that are read, decoded and cut one by one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.records import Records
from pycaffe_prune.engines.torch.data.transformer import Draws, Transformer
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.datum import Record

__all__ = ["StreamedSource", "split"]

Item = TypeVar("Item")


def split(items: Sequence[Item], parts: int) -> list[tuple[int, Sequence[Item]]]:
    """Split into at most ``parts`` runs of about equal length, each with its first one's place."""
    length = -(-len(items) // parts)
    return [(start, items[start : start + length]) for start in range(0, len(items), length)]


class StreamedSource(Source, Generic[Item]):
    """Reads each batch when it is asked for, in as many threads as PyTorch uses.

    Images are cut as they come, and go to the device as they are stored (one byte a value); mean
    and scale follow there.

    Args:
        records: Where the images come from; they belong to this from now on, `close` included.
        first: The first of them; all are of its dtype.
        transformer: What is done to them.
        batch_size: Images in a batch, at least 1.
        tops: 1 for images, 2 for images and labels.
        device: Where batches are wanted.
    """

    def __init__(
        self,
        records: Records[Item],
        first: Record,
        transformer: Transformer,
        batch_size: int,
        tops: int,
        device: torch.device,
    ) -> None:
        self._records, self._transformer = records, transformer
        self._size, self._tops, self._device = batch_size, tops, device
        self._dtype = first.pixels.dtype
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        self._batch = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of the images, and of the labels if they are a top."""
        return ((self._size, *self._transformer.shape), (self._size,))[: self._tops]

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        items = self._records.fetch(self._batch * self._size, self._size)
        draws = self._transformer.draw(self._batch, self._size)
        self._batch += 1
        pinned = self._device.type == "cuda"
        dtype = torch.uint8 if self._dtype == np.uint8 else torch.float32
        shape = (self._size, *self._transformer.shape)
        parts = torch.empty(shape, dtype=dtype, pin_memory=pinned)
        labels = torch.empty(self._size, pin_memory=pinned)
        jobs = [
            self._pool.submit(self._write, run, start, draws, parts, labels)
            for start, run in split(items, self._threads)
        ]
        for job in jobs:
            job.result()
        there = parts.to(self._device, non_blocking=True)
        tensors = (
            self._transformer.normalised(there, draws),
            labels.to(self._device, non_blocking=True),
        )
        return tensors[: self._tops]

    def _write(
        self, items: Sequence[Item], start: int, draws: Draws | None, parts: Tensor, labels: Tensor
    ) -> None:
        pixels, numbers = parts.numpy(), labels.numpy()
        for place, item in enumerate(items, start):
            record = self._records.decode(item)
            self._transformer.require_fitting(record.shape)
            if record.pixels.dtype != self._dtype:
                raise DataError(
                    f"{self._records.where}: holds images of bytes and of floats; store all alike"
                )
            draw = None if draws is None else draws[place]
            pixels[place] = self._transformer.cut(record.pixels, draw)
            numbers[place] = record.label

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`."""
        self._pool.shutdown()
        self._records.close()
