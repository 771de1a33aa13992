"""Names and sentences as people see them: nothing in them acts on a terminal or hides in a text.

Names of layers, nets, files and experiments are strangers' strings. A control character moves the
cursor or sets a window's title, a bidirectional one turns a line round; each is shown by its code.
"""

import unicodedata

from pycaffe_prune.formats.text_bytes import bytes_of

__all__ = ["shown"]

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what has no picture of its own, or breaks lines."""


def shown(text: str) -> str:
    r"""Return ``text`` with all that cannot be seen by its code: ``\n``, ``\x1b``, ``\u202e``.

    A byte that is not UTF-8, as a file's name or a layer's has it (`formats.text_bytes`), is
    ``\xNN``.
    """
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(sign: str) -> str:
    if unicodedata.category(sign) not in _UNSEEN:
        return sign
    if sign in _SHORT:
        return _SHORT[sign]
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # as Python has a byte in the name of a file
        return f"\\x{code - 0xDC00:02x}"
    if "\ud800" <= sign <= "\udfff":
        return f"\\u{code:04x}"
    data = bytes_of(sign)
    if len(data) == 1:
        return f"\\x{data[0]:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
