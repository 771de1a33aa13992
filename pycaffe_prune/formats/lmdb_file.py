"""LMDBs, read without LMDB's library, which trusts every page number of a file.

A damaged page makes the library read outside of its map, and so does a file that is cut short
while it is open (SIGSEGV, SIGBUS). What Caffe's files need is little: one table of keys without
duplicates, walked in order. Here each page is read with `os.pread` and checked before it is
followed; nothing is mapped. The format is that of LMDB 0.9 (`libraries/liblmdb/mdb.c`), data
version 1, of 64-bit little-endian machines. All of MNIST takes 0.1 s more than with the library.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pycaffe_prune.errors import DataError

__all__ = ["LmdbFile"]

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_KINDS = 0xFF & ~0x10  # a page that was new in its transaction may keep the mark 0x10
_BIG = 1  # a value on pages of its own
_EMPTY = 2**64 - 1
_DEEPEST = 32  # CURSOR_STACK
_PAGE_SIZES = tuple(1 << bits for bits in range(8, 17))

_HEAD = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper; of overflow pages: a count
_HEAD_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_TABLE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, three counts of pages, entries, root
_TAIL_META = struct.Struct("<QQ")  # last page, transaction
_NODE = struct.Struct("<HHHH")  # low and high half of a size or page, flags, key size
_META_SIZE = _HEAD.size + _HEAD_META.size + 2 * _TABLE.size + _TAIL_META.size

Record = tuple[bytes, bytes]
"""Key and value."""


@dataclass(frozen=True)
class _Meta:
    page_size: int
    depth: int
    entries: int
    root: int
    last_page: int
    transaction: int


class LmdbFile:
    """The records of an LMDB in the order of their keys; several threads may read one.

    Args:
        folder: The one that holds ``data.mdb``.

    Raises:
        DataError: It is missing, no LMDB, or truncated. The sentence begins with its path.
    """

    def __init__(self, folder: Path) -> None:
        self._where = f"{folder}: cannot be read as an LMDB"
        try:
            self._file = os.open(folder / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{self._where} (data.mdb: {error.strerror})") from error
        try:
            self._size = os.fstat(self._file).st_size
            self._meta = self._newest()
        except BaseException:
            self.close()
            raise

    def _newest(self) -> _Meta:
        first = self._read_meta(0)
        second = self._read_meta(first.page_size)
        meta = second if second.transaction > first.transaction else first
        needed = (meta.last_page + 1) * meta.page_size
        if needed > self._size:
            raise self._damaged(f"truncated: data.mdb has {self._size} bytes, {needed} are needed")
        if meta.entries > self._size // (_NODE.size + 2):
            raise self._damaged(f"{meta.entries} records cannot be in {self._size} bytes")
        return meta

    def _read_meta(self, offset: int) -> _Meta:
        content = self._bytes(offset, _META_SIZE)
        flags = _HEAD.unpack_from(content)[2]
        magic, version, _, _ = _HEAD_META.unpack_from(content, _HEAD.size)
        if magic != _MAGIC or not flags & _META:
            raise self._damaged("it has no head of one")
        if version != _VERSION:
            raise self._damaged(f"its format is version {version}, which no Caffe reads")
        place = _HEAD.size + _HEAD_META.size
        page_size = _TABLE.unpack_from(content, place)[0]
        _, flags, depth, _, _, _, entries, root = _TABLE.unpack_from(content, place + _TABLE.size)
        last_page, transaction = _TAIL_META.unpack_from(content, place + 2 * _TABLE.size)
        if page_size not in _PAGE_SIZES:
            raise self._damaged(f"its pages have {page_size} bytes")
        if flags:
            raise self._damaged("its keys have several values or an order of their own")
        if root == _EMPTY:
            depth = entries = 0
        return _Meta(page_size, depth, entries, root, last_page, transaction)

    @property
    def entries(self) -> int:
        """How many records there are, as the file says; reading them sees that it is so."""
        return self._meta.entries

    def records(self, first: int = 0) -> Iterator[Record]:
        """Yield the records from number ``first`` on; those before it are passed over unread.

        Raises:
            DataError: A page is damaged, or there are more or fewer records than the file says.
        """
        number, unpack = 0, _NODE.unpack_from
        for page in self._leaves(self._meta.root, self._meta.depth):
            offsets, length = self._offsets(page), len(page)
            number += len(offsets)
            if number > self._meta.entries:
                raise self._damaged("it has more records than it says, or a page twice")
            for offset in offsets[max(0, first - number + len(offsets)) :]:
                low, high, flags, key_size = unpack(page, offset)
                start = offset + 8
                end = start + key_size
                value_end = end + (low | high << 16)
                if not flags and value_end <= length:
                    yield page[start:end], page[end:value_end]
                else:
                    yield page[start:end], self._value(page, end, flags, value_end - end)
        if number != self._meta.entries:
            raise self._damaged(f"it has {number} records, not {self._meta.entries}")

    def _leaves(self, number: int, depth: int) -> Iterator[bytes]:
        if not depth:
            return
        page = self._page(number)
        flags = _HEAD.unpack_from(page)[2] & _KINDS
        if flags != (_LEAF if depth == 1 else _BRANCH) or depth > _DEEPEST:
            raise self._damaged(f"page {number} is not what it should be")
        if depth == 1:
            yield page
            return
        for offset in self._offsets(page):
            low, high, top, _ = _NODE.unpack_from(page, offset)
            yield from self._leaves(low | high << 16 | top << 32, depth - 1)

    def _offsets(self, page: bytes) -> tuple[int, ...]:
        lower = _HEAD.unpack_from(page)[3]
        count = (lower - _HEAD.size) // 2
        if not 0 < count <= (len(page) - _HEAD.size) // 2:
            raise self._damaged("a page has an impossible number of records")
        offsets = struct.unpack_from(f"<{count}H", page, _HEAD.size)
        if min(offsets) < lower or max(offsets) > len(page) - 8:
            raise self._damaged("a page has a record outside of itself")
        return offsets

    def _value(self, page: bytes, place: int, flags: int, size: int) -> bytes:
        """A value that is not in its page, but on pages of its own, which follow each other."""
        if flags != _BIG or place + 8 > len(page):
            raise self._damaged("a record leads out of its page, or a key has several values")
        number = int.from_bytes(page[place : place + 8], "little")
        if number > self._meta.last_page:
            raise self._damaged(f"it names page {number}, which is not there")
        offset = number * self._meta.page_size
        content = self._bytes(offset, _HEAD.size + size)
        if _HEAD.unpack_from(content)[2] & _KINDS != _OVERFLOW:
            raise self._damaged(f"page {number} is not what it should be")
        return content[_HEAD.size :]

    def _page(self, number: int) -> bytes:
        if number > self._meta.last_page:
            raise self._damaged(f"it names page {number}, which is not there")
        return self._bytes(number * self._meta.page_size, self._meta.page_size)

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise self._damaged("truncated")
        try:
            content = os.pread(self._file, size, offset)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error
        if len(content) < size:
            raise self._damaged("truncated while it is read")
        return content

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self._where} ({reason})")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
