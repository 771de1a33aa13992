"""The ImageData layer: image files named in a list."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.engines.torch.data.records import Records
from pycaffe_prune.engines.torch.data.streamed import StreamedSource
from pycaffe_prune.engines.torch.data.transformer import Transformer
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.datum import Record, channels_first, read_image

__all__ = ["ImageFile", "ImageFiles", "image_source"]


def image_source(param: LayerParameter, phase: int, device: torch.device, seed: int) -> Source:
    """Return the batches of an ImageData layer (`src/caffe/layers/image_data_layer.cpp`).

    Args:
        param: The layer.
        phase: TRAIN or TEST.
        device: Where batches are wanted.
        seed: Of order, ``rand_skip``, crops and mirrors.

    Raises:
        DataError: The list or an image is missing or damaged, or the images do not fit to
            ``transform_param``.
        FormatError: The mean file is missing or damaged.
    """
    records = ImageFiles(param, seed)
    first = records.decode(records.fetch(0, 1)[0])
    transformer = Transformer(param, phase, first.shape, device, seed)
    streamed = StreamedSource(
        records, first, transformer, param.image_data_param.batch_size, len(param.top), device
    )
    return Prefetch(streamed, device, param.data_param.prefetch)


class ImageFile(NamedTuple):
    """A line of the list."""

    path: Path
    label: int


class ImageFiles(Records[ImageFile]):
    """The images of a list, with ``shuffle`` in another order at each pass.

    Args:
        param: An ImageData layer.
        seed: Of order and ``rand_skip``.

    Raises:
        DataError: The list is missing, empty or damaged, or the layer contradicts itself.
    """

    def __init__(self, param: LayerParameter, seed: int) -> None:
        told = param.image_data_param
        self._where = f"layer '{param.name}' (ImageData): the list {told.source}"
        if bool(told.new_height) != bool(told.new_width):
            raise DataError(
                f"layer '{param.name}' (ImageData): new_height is {told.new_height}, new_width is "
                f"{told.new_width}; give both or none"
            )
        self._size = (told.new_width, told.new_height)  # as OpenCV has it
        self._flag = cv2.IMREAD_COLOR if told.is_color else cv2.IMREAD_GRAYSCALE
        self._shuffle, self._seed = told.shuffle, seed
        self._files = self._read_list(Path(told.source), told.root_folder)
        self._order = (-1, np.arange(len(self._files)))
        self._skip = 0
        if told.rand_skip:
            self._skip = int(draws_for(seed, Purpose.SKIP, 0).integers(told.rand_skip))
        if self._skip >= len(self._files):
            raise DataError(
                f"{self._where} has {len(self._files)} images, rand_skip {told.rand_skip} may skip "
                "all of them; use a smaller one"
            )

    def _read_list(self, source: Path, root: str) -> list[ImageFile]:
        try:
            text = source.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise DataError(f"{self._where} cannot be read ({error.strerror})") from error
        if not text:
            raise DataError(f"{self._where} is empty; give a file's name and a label a line")
        files = []
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            name, _, label = line.rpartition(" ")
            if not name or not label.lstrip("-").isdecimal():
                raise DataError(
                    f"{self._where}, line {number}: is {line!r} instead of a file's name, a space "
                    "and a label"
                )
            files.append(ImageFile(Path(root + name), int(label)))
        return files

    @property
    def where(self) -> str:
        """See `Records.where`."""
        return self._where

    def fetch(self, start: int, count: int) -> Sequence[ImageFile]:
        """See `Records.fetch`."""
        begin = start + self._skip
        found = []
        for number in range(begin, begin + count):
            epoch, place = divmod(number, len(self._files))
            found.append(self._files[self._order_of(epoch)[place]])
        return found

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._shuffle and self._order[0] != epoch:
            draws = draws_for(self._seed, Purpose.ORDER, epoch)
            self._order = (epoch, draws.permutation(len(self._files)))
        return self._order[1]

    def decode(self, item: ImageFile) -> Record:
        """See `Records.decode`; `ReadImageToCVMat` of `src/caffe/util/io.cpp`."""
        image = read_image(item.path, self._flag)
        if image is None:
            raise DataError(f"{self._where}: the image {item.path} is not there or is damaged")
        if all(self._size):
            image = cv2.resize(image, self._size)
        return Record(channels_first(image), item.label)

    def close(self) -> None:
        """See `Records.close`; no file stays open."""
