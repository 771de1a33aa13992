"""Numbered image files, wherever they lie: in a folder, or in a tar archive, packed or not."""

import gzip
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.limits import Budget

__all__ = ["ImageFile", "duplicates", "find_images"]

_NAME = re.compile(r"image_(\d{5})\.jpg")
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class ImageFile:
    """A file of its own, or a stretch of an archive.

    Attributes:
        name: What to call it.
        path: The file that holds it.
        offset: Where in that file it starts, in bytes.
        size: Its length in bytes.
    """

    name: str
    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return its content.

        Raises:
            DataError: It cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read ({error.strerror or error})") from error


def find_images(source: Path, scratch: Path) -> Mapping[int, ImageFile]:
    """Find the files ``image_00001.jpg``, ``image_00002.jpg``, … of a source, by their numbers.

    Args:
        source: A folder that has them, or has them in its folder ``jpg``, or has one archive of
            them; or such an archive: a tar, packed with gzip or not.
        scratch: Where a packed archive may be unpacked to. The images are read from there, so the
            caller removes it when they have been.

    Raises:
        DataError: There are none, there are several archives, or the archive is damaged.
    """
    if not source.is_dir():
        return _in_archive(source, scratch)
    for folder in (source / "jpg", source):
        if folder.is_dir() and (found := dict(_in_folder(folder))):
            return found
    archives = sorted(path for path in source.iterdir() if path.name.endswith(_ARCHIVE_SUFFIXES))
    if len(archives) == 1:
        return _in_archive(archives[0], scratch)
    several = ", ".join(path.name for path in archives)
    raise DataError(
        f"{source}: there is no image_NNNNN.jpg in it or in its folder jpg, and "
        + (f"several archives ({several}): name one of them" if several else "no .tar or .tgz")
    )


def duplicates(images: Mapping[int, ImageFile]) -> list[tuple[int, ...]]:
    """Return the numbers of files that are byte for byte the same, group by group.

    Raises:
        DataError: A file cannot be read.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for number in sorted(images):
        by_size[images[number].size].append(number)
    by_content: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for size, numbers in by_size.items():
        if len(numbers) > 1:
            for number in numbers:
                by_content[size, sha256(images[number].read()).digest()].append(number)
    return sorted(tuple(numbers) for numbers in by_content.values() if len(numbers) > 1)


def _in_folder(folder: Path) -> Iterator[tuple[int, ImageFile]]:
    for path in folder.iterdir():
        if (match := _NAME.fullmatch(path.name)) and path.is_file():
            yield int(match[1]), ImageFile(path.name, path, 0, path.stat().st_size)


def _in_archive(archive: Path, scratch: Path) -> Mapping[int, ImageFile]:
    try:
        plain = _unpacked(archive, scratch)
        with tarfile.open(plain, "r:") as tar:
            found = {
                int(match[1]): ImageFile(match[0], plain, member.offset_data, member.size)
                for member in tar
                if member.isreg() and (match := _NAME.fullmatch(member.name.rpartition("/")[2]))
            }
    except FormatError as error:
        raise DataError(f"{archive}: {error}") from error
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{archive}: cannot be read as a tar archive ({reason})") from error
    length = plain.stat().st_size
    if any(file.offset + file.size > length for file in found.values()):
        raise DataError(f"{archive}: truncated. Get the archive again.")
    if not found:
        raise DataError(f"{archive}: there is no image_NNNNN.jpg in this archive")
    return found


def _unpacked(archive: Path, scratch: Path) -> Path:
    with archive.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if not packed:
        return archive
    budget = Budget(archive.stat().st_size)
    with gzip.open(archive) as content, scratch.open("wb") as plain:
        while part := content.read(1 << 20):
            budget.spend(len(part))
            plain.write(part)
    return scratch
