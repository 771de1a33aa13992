"""Strings that are not UTF-8: Caffe's are bytes, Python's protobuf takes UTF-8 alone.

A byte that is not part of UTF-8 text (a name in Latin-1, a path in GBK) stands in a message as one
private-use character, U+10FF80 to U+10FFFF, and becomes that byte again in a file. The same bytes
thus give the same name in a prototxt and in a caffemodel, and come out as they were.
"""

import re

__all__ = ["MARKS", "bytes_of", "text_of"]

_FIRST = 0x10FF00
_STANDING = re.compile("[\U0010ff80-\U0010ffff]")
_ESCAPED = re.compile("[\udc80-\udcff]")

MARKS = (b"\xf4\x8f\xbe", b"\xf4\x8f\xbf")
"""How the private-use characters begin in UTF-8: without one of these no byte stands so."""


def text_of(data: bytes) -> str:
    """Return ``data`` as text; bytes that are not UTF-8 become private-use characters.

    Characters of that range in ``data`` itself are taken byte for byte too, so that `bytes_of`
    always gives ``data`` back.
    """
    text = data.decode("utf-8", "surrogateescape")
    if _STANDING.search(text):
        text = _STANDING.sub(_as_escapes, text)
    return _ESCAPED.sub(lambda found: chr(ord(found[0]) - 0xDC00 + _FIRST), text)


def _as_escapes(found: re.Match[str]) -> str:
    return "".join(chr(0xDC00 + byte) for byte in found[0].encode())


def bytes_of(text: str) -> bytes:
    """Return the bytes that ``text`` stands for: what `text_of` was given."""
    escaped = _STANDING.sub(lambda found: chr(ord(found[0]) - _FIRST + 0xDC00), text)
    return escaped.encode("utf-8", "surrogateescape")
