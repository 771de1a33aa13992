"""TensorBoard event files of training runs, made from their ``log.jsonl``.

The format is TensorFlow's: records (``core/lib/io/record_writer.cc``: length, masked CRC-32C of it,
content, masked CRC-32C of that) that hold Event messages (``core/util/event.proto``). A scalar
needs few fields of them; the packages that write them bring a web server and more for that.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_log import json_lines
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.wire import FIXED32, FIXED64, LENGTH, VARINT, encode_varint

__all__ = ["EVENTS_NAME", "Scalar", "crc32c", "event_file", "scalars", "write_all_events"]

EVENTS_NAME = "events.out.tfevents.0000000000.caffe-prune"
"""TensorBoard finds files by the part in the middle; one name, so that a second writing replaces
the first."""

_CURVES = {
    "progress": {"loss": "train/loss", "lr": "train/lr"},
    "test": {"loss": "test/loss", "accuracy": "test/accuracy"},
}


class Scalar(NamedTuple):
    """One value of one curve."""

    tag: str
    step: int
    """Iteration."""
    value: float


def scalars(folder: RunFolder) -> list[Scalar]:
    """Return the curves of a run's log by iteration; what a resumed run logged again counts once.

    The curve of accuracies ends in the name of the layer that was judged, where the log has it, and
    a test's curves in the name of the test net, where the solver has several.

    Damaged lines, as a killed process leaves them, are passed over.
    """
    found: dict[tuple[int, str], float] = {}
    for event in json_lines(folder.log):
        for field, tag in _CURVES.get(event["event"], {}).items():
            if event.get(field) is not None:
                judge = event.get("accuracy_name") if field == "accuracy" else None
                curve = "/".join(filter(None, (tag, judge, event.get("test_net_name"))))
                found[event.get("iteration", 0), curve] = float(event[field])
    return [Scalar(tag, step, value) for (step, tag), value in sorted(found.items())]


def event_file(values: list[Scalar], wall_time: float) -> bytes:
    """Return an event file's content.

    Args:
        values: In the order in which they are to be written.
        wall_time: Seconds since 1970, said of every event: a log tells no time of its lines.
    """
    clock = _field(1, FIXED64, struct.pack("<d", wall_time))
    records = [_record(clock + _field(3, LENGTH, b"brain.Event:2"))]
    for tag, step, value in values:
        entry = _field(1, LENGTH, tag.encode()) + _field(2, FIXED32, struct.pack("<f", value))
        summary = _field(1, LENGTH, entry)
        at = _field(2, VARINT, encode_varint(step))
        records.append(_record(clock + at + _field(5, LENGTH, summary)))
    return b"".join(records)


def write_all_events(folder: Path) -> list[Path]:
    """Write an event file beside every ``log.jsonl`` below ``folder``.

    Args:
        folder: A run's folder, or an experiment's with all its stages.

    Returns:
        The files written.

    Raises:
        PruneError: A folder cannot be written to, or the disk is full.
    """
    written = []
    for log in sorted(folder.rglob("log.jsonl")):
        content = event_file(scalars(RunFolder(log.parent)), log.stat().st_mtime)
        with atomic_write(log.with_name(EVENTS_NAME)) as temporary:
            temporary.write_bytes(content)
        written.append(log.with_name(EVENTS_NAME))
    return written


def _field(number: int, wire_type: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    length = encode_varint(len(content)) if wire_type == LENGTH else b""
    return encode_varint(number << 3 | wire_type) + length + content


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_TABLE = tuple(_table())


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of ``content``."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
