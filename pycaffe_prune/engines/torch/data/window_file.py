"""The list of a WindowData layer: images, and windows of objects and of background in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import WindowDataParameter

__all__ = ["Window", "WindowFile", "read_windows"]

_HEAD, _WINDOW = 7, 6  # words


class Window(NamedTuple):
    """A part of an image; the corners are inside."""

    image: Path
    label: int
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class WindowFile:
    """What a list holds."""

    foreground: tuple[Window, ...]
    background: tuple[Window, ...]
    """Of label 0."""


def read_windows(told: WindowDataParameter, where: str) -> WindowFile:
    """Read the list (`DataLayerSetUp` of `src/caffe/layers/window_data_layer.cpp`).

    Per image: ``# number``, its path, channels, height, width and the number of windows; then a
    line of label, overlap with an object, x1, y1, x2 and y2 a window.

    Args:
        told: ``source`` is a path as it is.
        where: The layer, to begin a sentence with.

    Raises:
        DataError: It is missing or damaged, or lacks windows of either kind.
    """
    try:
        text = Path(told.source).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(
            f"{where}: the list {told.source} cannot be read ({error.strerror})"
        ) from error
    where = f"{where}: the list {told.source}"
    try:
        entries = list(_entries(text.split()))
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}") from error
    images = [Path(told.root_folder + path) for path, _, _ in entries]
    foreground: list[Window] = []
    background: list[Window] = []
    for _, number, rows in entries:
        if rows and not 0 <= number < len(images):
            raise DataError(
                f"{where} calls an image number {number} and names {len(images)}; count them from 0"
            )
        for label, overlap, *corners in rows:
            window = Window(images[number], int(label), *map(int, corners))
            if np.float32(overlap) >= np.float32(told.fg_threshold):
                foreground.append(window)
            elif np.float32(overlap) < np.float32(told.bg_threshold):
                background.append(window._replace(label=0))
    _require_both(WindowFile(tuple(foreground), tuple(background)), where)
    return WindowFile(tuple(foreground), tuple(background))


_Entry = tuple[str, int, list[list[str]]]


def _entries(words: list[str]) -> Iterator[_Entry]:
    """Yield of each image its path, its number and its windows' words."""
    place = 0
    while place < len(words):
        head = words[place : place + _HEAD]
        if len(head) < _HEAD or head[0] != "#":
            raise ValueError(
                f"{' '.join(head)!r} is not '# number path channels height width windows'"
            )
        if head[3] != "3":
            raise ValueError(
                f"it says that {head[2]} has {head[3]} channels, and windows are cut from colour "
                "images; write 3"
            )
        place += _HEAD
        rows = []
        for _ in range(int(head[6])):
            row = words[place : place + _WINDOW]
            if len(row) < _WINDOW:
                raise ValueError(f"it ends within the windows of {head[2]}")
            float(row[1])
            _ = [int(word) for word in (row[0], *row[2:])]
            rows.append(row)
            place += _WINDOW
        yield head[2], int(head[1]), rows


def _require_both(found: WindowFile, where: str) -> None:
    for kind, windows in (("fg_threshold", found.foreground), ("bg_threshold", found.background)):
        if not windows:
            which = "from it on" if kind == "fg_threshold" else "below it"
            raise DataError(
                f"{where} has no windows for {kind}, whose overlap is {which}; Caffe needs both "
                "kinds"
            )
    if worst := [window for window in found.foreground if window.label < 1]:
        raise DataError(
            f"{where} has a window of an object with label {worst[0].label}; 0 is the background, "
            "objects begin at 1"
        )
