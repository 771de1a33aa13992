"""Batches made in the background, as `src/caffe/layers/base_data_layer.cpp` makes them."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.formats.axes import Shape

__all__ = ["Prefetch"]

_Made = tuple[tuple[Tensor, ...], torch.cuda.Event | None]


class Prefetch(Source):
    """Gives the batches of another source, which one thread makes some batches ahead.

    On CUDA they are made on a stream of their own, so that copies do not wait for the net.

    Args:
        source: It belongs to this one from now on, `close` included.
        device: Where its batches are.
        ahead: How many batches are in the making or ready; `DataParameter.prefetch`, at least 1.
    """

    def __init__(self, source: Source, device: torch.device, ahead: int) -> None:
        self._source, self._device, self._ahead = source, device, max(ahead, 1)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Streams of one priority come from a pool of 32, round and round: of another one than
            # those that graphs are recorded on, it is not one of them.
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: deque[Future[_Made]] = deque()
        self._closed = False

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """As the source's."""
        return self._source.shapes

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`. An error of the thread is raised here."""
        while len(self._coming) <= self._ahead:
            self._coming.append(self._thread.submit(self._make))
        tensors, made = self._coming.popleft().result()
        if made is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(made)
            for tensor in tensors:
                tensor.record_stream(current)
        return tensors

    def _make(self) -> _Made:
        if self._stream is None:
            return self._source.next(), None
        with torch.cuda.stream(self._stream):
            return self._source.next(), self._stream.record_event()

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._drop()
        self._source.seek(batch)

    def _drop(self) -> None:
        for future in self._coming:
            future.cancel()
        wait(self._coming)
        self._coming.clear()

    def close(self) -> None:
        """Wait for the thread to end, and close the source."""
        if self._closed:
            return
        self._closed = True
        self._drop()
        self._thread.shutdown()
        self._source.close()
