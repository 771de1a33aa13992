"""PNG images, looked at before OpenCV decodes them."""

__all__ = ["has_false_sizes"]

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME = 12  # length, type and checksum of a chunk


def has_false_sizes(content: bytes) -> bool:
    """Tell whether a PNG has a chunk that is longer than what is left of the file.

    OpenCV takes memory for a chunk by its length alone, up to 4 GiB. Other files have none.
    """
    if not content.startswith(_PNG):
        return False
    place = len(_PNG)
    while place + _FRAME <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if place + _FRAME + length > len(content):
            return True
        if content[place + 4 : place + 8] == b"IEND":
            return False
        place += _FRAME + length
    return False
