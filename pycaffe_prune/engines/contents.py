"""What is in data files, as checksums: found once, then known as long as a file is not touched.

What was found is kept in a file beside the data (`NOTES_ENDING`), or in the user's cache where that
folder cannot be written to, together with the data file's size, times of change and inode.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pycaffe_prune.cache import cache_root
from pycaffe_prune.errors import DataError, PruneError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.lmdb_file import LmdbFile

__all__ = ["NOTES_ENDING", "Content", "file_contents", "lmdb_content", "noted_sha256"]

_log = logging.getLogger(__name__)

NOTES_ENDING = ".contents.json"
_UNSETTLED_NS = 2 * 10**9
"""A file that changed so lately may change again without another time (a file system's clock)."""

_MUCH = 2 * 10**9
"""Bytes whose reading takes so long that it is said."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # by colour type, as OpenCV decodes them
_JPEG = b"\xff\xd8"
_JPEG_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Content(BaseModel):
    """What was found in a file."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Of a file's bytes; of an LMDB over key and value of each record, in the order of the keys, so
    that equal records give the same one whatever wrote them."""
    records: int = 0
    labels: tuple[int, int] | None = None
    """The smallest and the largest label of an LMDB of Datum messages."""
    pixels: tuple[tuple[int, str], ...] = ()
    """Each number of channels of images that are not encoded, and the key of the first of them."""
    encoded: tuple[tuple[int, str], ...] = ()
    """The same of images that are encoded (JPEG and PNG)."""


_Stamp = tuple[int, int, int, int]


class _Note(BaseModel):
    stamp: _Stamp
    content: Content


_NOTES = TypeAdapter(dict[str, _Note])


def lmdb_content(folder: Path) -> Content:
    """Return what is in an LMDB; its records are read once, later calls look at the file's status.

    Raises:
        DataError: It is missing or damaged.
    """
    file = folder / "data.mdb"
    try:
        return _known([file], folder / NOTES_ENDING, lambda _: _read_lmdb(folder))[file]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read as an LMDB ({error})") from error


def file_contents(paths: Iterable[Path], source: Path) -> dict[Path, Content]:
    """Return the checksum of each of the files that a list names; each is read once.

    Args:
        paths: The files.
        source: The list: what was found is kept beside it.

    Raises:
        DataError: One of them is missing or cannot be read.
    """

    def find(path: Path) -> Content:
        return Content(sha256=sha256_of(path))

    wanted = list(dict.fromkeys(paths))
    try:
        return _known(wanted, source.with_name(f".{source.name}{NOTES_ENDING}"), find)
    except OSError as error:
        raise DataError(
            f"{source}: names the file {error.filename}, which cannot be read ({error.strerror}); "
            "correct the list, or --data"
        ) from error


def noted_sha256(path: Path) -> str:
    """Return a file's SHA-256; it is read once, later calls look at its status.

    Raises:
        DataError: It cannot be read.
    """

    def find(path: Path) -> Content:
        return Content(sha256=sha256_of(path))

    try:
        return _known([path], path.with_name(f".{path.name}{NOTES_ENDING}"), find)[path].sha256
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _known(
    files: Iterable[Path], beside: Path, find: Callable[[Path], Content]
) -> dict[Path, Content]:
    places = (beside, _in_cache(beside))
    notes = next(filter(None, map(_read_notes, places)), {})
    names = {file: os.path.relpath(file, beside.parent) for file in files}
    began, stamps = time.time_ns(), {file: _stamp(file) for file in names}
    unread = [file for file in names if not _is_noted(notes.get(names[file]), stamps[file])]
    _say_if_much(beside.parent, [stamps[file][0] for file in unread])
    again = set(unread)
    found = {file: notes[names[file]].content for file in names if file not in again}
    is_new = False
    for file in unread:
        stamp, found[file] = stamps[file], find(file)
        if _stamp(file) == stamp and began - max(stamp[1:3]) > _UNSETTLED_NS:
            notes[names[file]], is_new = _Note(stamp=stamp, content=found[file]), True
    if is_new:
        _write_notes(places, notes)
    return found


def _is_noted(note: _Note | None, stamp: _Stamp) -> bool:
    return note is not None and note.stamp == stamp


def _say_if_much(folder: Path, sizes: Sequence[int]) -> None:
    if sum(sizes) > _MUCH:
        _log.warning(
            "%s: %.1f GB are read once, to know them by their content", folder, sum(sizes) / 1e9
        )


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _in_cache(beside: Path) -> Path:
    name = hashlib.sha256(str(beside.resolve()).encode(errors="surrogateescape")).hexdigest()
    return cache_root() / "contents" / f"{name}.json"


def _read_notes(place: Path) -> dict[str, _Note]:
    """What cannot be read was never noted: it is found again."""
    try:
        return _NOTES.validate_json(place.read_bytes())
    except (OSError, ValidationError):
        return {}


def _write_notes(places: Iterable[Path], notes: dict[str, _Note]) -> None:
    told = json.dumps({path: note.model_dump() for path, note in notes.items()})
    for place in places:
        with suppress(PruneError, OSError):  # without notes all is found again the next time
            write_text(place, told)
            return


def _read_lmdb(folder: Path) -> Content:
    digest, labels = hashlib.sha256(), _Range()
    pixels: dict[int, str] = {}
    encoded: dict[int, str] = {}
    with LmdbFile(folder) as database:
        for key, value in database.records():
            digest.update(key)
            digest.update(value)
            with suppress(DecodeError):  # told, with the record, by who decodes it
                datum = Datum.FromString(value)
                labels.add(datum.label)
                if not datum.encoded:
                    pixels.setdefault(datum.channels, _text(key))
                elif channels := _channels(datum.data):
                    encoded.setdefault(channels, _text(key))
        count = database.entries
    return Content(
        sha256=digest.hexdigest(),
        records=count,
        labels=labels.found,
        pixels=tuple(pixels.items()),
        encoded=tuple(encoded.items()),
    )


class _Range:
    """The smallest and the largest of some numbers."""

    found: tuple[int, int] | None = None

    def add(self, number: int) -> None:
        least, most = self.found or (number, number)
        self.found = (min(least, number), max(most, number))


def _text(key: bytes | memoryview) -> str:
    return bytes(key).decode(errors="backslashreplace")


def _channels(image: bytes) -> int | None:
    """How many channels OpenCV decodes an image to, from its head; None: another format."""
    if image.startswith(_PNG):
        return _PNG_CHANNELS.get(image[25]) if len(image) > 25 else None
    if not image.startswith(_JPEG):
        return None
    place = len(_JPEG)
    while place + 9 < len(image) and image[place] == 0xFF:
        if image[place + 1] in _JPEG_STARTS_OF_FRAME:
            return 1 if image[place + 9] == 1 else 3
        place += 2 + int.from_bytes(image[place + 2 : place + 4], "big")
    return None
