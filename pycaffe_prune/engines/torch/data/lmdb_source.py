"""The Data layer: an LMDB of Datum messages in the order of its keys, pass after pass."""

from collections.abc import Hashable, Sequence
from itertools import islice
from pathlib import Path

import cv2
import torch

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.engines.torch.data.records import Records
from pycaffe_prune.engines.torch.data.resident import ResidentSource, load_image_set
from pycaffe_prune.engines.torch.data.streamed import StreamedSource
from pycaffe_prune.engines.torch.data.transformer import Transformer
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import DataParameter, Datum, LayerParameter
from pycaffe_prune.formats.datum import Record, decode_datum
from pycaffe_prune.formats.lmdb_file import LmdbFile

__all__ = ["LmdbRecords", "database_source"]

_REMEDY = "build it with `caffe-prune data …`"


def database_source(param: LayerParameter, phase: int, device: torch.device, seed: int) -> Source:
    """Return the batches of a Data layer (`src/caffe/layers/data_layer.cpp`).

    A set that fits is held in the device's memory; the others, and on a CPU those of encoded
    images, are read ahead in the background. ``rand_skip`` does nothing, as in Caffe itself.

    Args:
        param: The layer.
        phase: TRAIN or TEST.
        device: Where batches are wanted.
        seed: Of crops and mirrors.

    Raises:
        DataError: The LMDB is missing, empty or damaged, or its images do not fit to
            ``transform_param``.
        FormatError: The mean file is missing or damaged.
    """
    records = LmdbRecords(param)
    try:
        datum = records.fetch(0, 1)[0]
        first = records.decode(datum)
        transformer = Transformer(param, phase, first.shape, device, seed)
        size, tops = param.data_param.batch_size, len(param.top)
        # On a CPU decoding anew costs little beside the net, decoding all at the start much.
        if device.type != "cpu" or not Datum.FromString(datum[1]).encoded:
            held = load_image_set(records, records.count, first, device, records.key)
            if held is not None:
                records.close()
                return ResidentSource(held, transformer, size, tops)
        streamed = StreamedSource(records, first, transformer, size, tops, device)
    except BaseException:
        records.close()
        raise
    return Prefetch(streamed, device, param.data_param.prefetch)


class LmdbRecords(Records[tuple[int, bytes]]):
    """The images of an LMDB; an item is the record's number and value.

    Args:
        param: A Data layer.

    Raises:
        DataError: There is no LMDB, or it is empty, damaged or not of this backend.
    """

    def __init__(self, param: LayerParameter) -> None:
        source, told = Path(param.data_param.source), param.transform_param
        self._where = f"layer '{param.name}' (Data): the LMDB {source}"
        if param.data_param.backend != DataParameter.LMDB:
            raise DataError(
                f"layer '{param.name}' (Data): {source} is a LevelDB by its backend, which is not "
                "read here; make an LMDB of the same images (Caffe's convert_imageset "
                "--backend=lmdb) and say backend: LMDB"
            )
        if told.force_color and told.force_gray:
            raise DataError(
                f"layer '{param.name}' (Data): has force_color and force_gray; remove one of them"
            )
        self._flag = cv2.IMREAD_UNCHANGED
        if told.force_color or told.force_gray:
            self._flag = cv2.IMREAD_COLOR if told.force_color else cv2.IMREAD_GRAYSCALE
        self._open(source)

    def _open(self, source: Path) -> None:
        if not (source / "data.mdb").is_file():
            raise DataError(f"{self._where} is not there; {_REMEDY}")
        try:
            self._file = LmdbFile(source)
        except DataError as error:
            raise self._unreadable(error) from error
        self.count = self._file.entries
        if not self.count:
            self._file.close()
            raise DataError(f"{self._where} is empty; {_REMEDY}")
        self._coming = self._file.records()
        self._place = 0
        status = (source / "data.mdb").stat()
        self.key: Hashable = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            self._flag,
        )
        """Another one for another file, other content or another way of decoding."""

    @property
    def where(self) -> str:
        """See `Records.where`."""
        return self._where

    def fetch(self, start: int, count: int) -> Sequence[tuple[int, bytes]]:
        """See `Records.fetch`."""
        items: list[tuple[int, bytes]] = []
        place = start % self.count
        try:
            while len(items) < count:
                if place != self._place:
                    self._coming = self._file.records(place)
                wanted = min(count - len(items), self.count - place)
                values = [value for _, value in islice(self._coming, wanted)]
                items += enumerate(values, place)
                self._place = place + wanted
                place = self._place % self.count
        except DataError as error:
            self._place = -1
            raise self._unreadable(error) from error
        return items

    def _unreadable(self, error: DataError) -> DataError:
        return DataError(f"{self._where} cannot be read ({error}); {_REMEDY}")

    def decode(self, item: tuple[int, bytes]) -> Record:
        """See `Records.decode`."""
        number, value = item
        return decode_datum(value, f"{self._where}, record {number}", self._flag)

    def close(self) -> None:
        """See `Records.close`."""
        self._file.close()
