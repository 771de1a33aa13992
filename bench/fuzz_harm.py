"""How an input is harmed: bytes, numbers, pieces, words; before it is packed, or as it is."""

import random
import re
import struct

from fuzz_corpus import Format

__all__ = ["harmed"]

_NUMBERS = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31,
            2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
_WORDS = (b"0", b"1", b"-1", b"-0", b"1e400", b"nan", b"2147483647", b"18446744073709551615",
          b"9" * 5000, b"{", b"}", b"[", b"]", b'"', b"\\", b"'", b"\0", b"\n", b"#", b":", b",",
          b"true", b"null", b"..", b"/", b"\xff\xfe", b"{" * 2000, b"[" * 2000)  # fmt: skip


def harmed(one: Format, pick: random.Random) -> bytes:
    """Return the format's file, harmed in one to eight places; in few more often than in many."""

    def harm(content: bytes) -> bytes:
        data = bytearray(content)
        for _ in range(pick.choice((1, 1, 1, 2, 2, 4, 8))):
            pick.choice(_HARMS)(data, pick)
        return bytes(data)

    if one.repack is not None and pick.random() < 0.5:
        return one.repack(one.content, harm)
    return harm(one.content)


def _place(data: bytearray, pick: random.Random) -> int:
    """Any place; near the beginning more often, since that is where headers are."""
    end = len(data) if pick.random() < 0.7 else min(len(data), 128)
    return pick.randrange(end) if end else 0


def _bit(data: bytearray, pick: random.Random) -> None:
    if data:
        data[_place(data, pick)] ^= 1 << pick.randrange(8)


def _byte(data: bytearray, pick: random.Random) -> None:
    if data:
        data[_place(data, pick)] = pick.randrange(256)


def _number(data: bytearray, pick: random.Random) -> None:
    code = pick.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(code)
    value = (pick.choice(_NUMBERS) + pick.choice((0, 0, 0, 1, -1))) % 256**size
    place = _place(data, pick)
    if pick.random() < 0.5:
        place -= place % size
    data[place : place + size] = struct.pack(code, value)


def _cut(data: bytearray, pick: random.Random) -> None:
    if pick.random() < 0.3:
        del data[_place(data, pick) :]


def _remove(data: bytearray, pick: random.Random) -> None:
    place = _place(data, pick)
    del data[place : place + pick.randint(1, 40)]


def _repeat(data: bytearray, pick: random.Random) -> None:
    place, size = _place(data, pick), pick.randint(1, 64)
    piece = bytes(data[place : place + size]) * pick.choice((1, 1, 2, 50))
    target = _place(data, pick)
    data[target:target] = piece


def _insert(data: bytearray, pick: random.Random) -> None:
    place = _place(data, pick)
    data[place:place] = pick.randbytes(pick.randint(1, 16))


def _word(data: bytearray, pick: random.Random) -> None:
    """Put a word in another's place, where the file is text; anywhere, where it is not."""
    words = [found.span() for found in re.finditer(rb"[\w.+-]+|[^\w\s]", bytes(data[:4096]))]
    if words and pick.random() < 0.8:
        begin, end = pick.choice(words)
        other = pick.choice(words)
        new = bytes(data[slice(*other)]) if pick.random() < 0.5 else pick.choice(_WORDS)
        data[begin:end] = new
    else:
        place = _place(data, pick)
        data[place:place] = pick.choice(_WORDS)


_HARMS = (_bit, _byte, _byte, _number, _number, _cut, _remove, _repeat, _insert, _word)
