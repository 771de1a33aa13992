"""Names that become files and folders: one plain component of a path, on any system.

Strangers choose the names of experiments, presets and layers; none of them may lead out of the
folder that is written to.
"""

import hashlib
import re

from pycaffe_prune.shown import shown

__all__ = ["MOST_BYTES", "as_component", "why_no_component"]

MOST_BYTES = 100
"""Of a name in UTF-8: two of them and a key fit into the 255 that a folder's name may have."""
_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
_UNUSUAL = re.compile(r"[^\w.,=+@-]", re.ASCII)
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)


def why_no_component(name: str) -> str | None:
    """Return why a name is no plain component of a path, as the end of a sentence; None: it is."""
    if not name.strip(". "):
        return "is no name of a folder"
    if shown(name) != name:
        return "holds characters that cannot be seen"
    if found := _FORBIDDEN.search(name):
        return f"holds '{found[0]}', which a folder's name cannot have"
    if name[0] in "-. " or name[-1] in ". ":
        return "begins with '-', '.' or a space, or ends with '.' or a space"
    if _DEVICES.fullmatch(name):
        return "is the name of a device on Windows"
    if len(name.encode()) > MOST_BYTES:
        return f"has more than {MOST_BYTES} bytes"
    return None


def as_component(name: str) -> str:
    """Return a plain component of a path for any name.

    A name of letters, digits and ``._,=+@-`` is its own. In others the rest is replaced, long ones
    are cut, and a checksum keeps them apart; names that differ in case alone are not kept apart.
    """
    plain = _UNUSUAL.sub("_", name)
    if plain == name and why_no_component(name) is None:
        return name
    checksum = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain.replace('.', '_').lstrip('-')[: MOST_BYTES - 10]}~{checksum}"
