import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.wire import fields
from pycaffe_prune.reports.outputs.tensorboard import (
    EVENTS_NAME,
    Scalar,
    crc32c,
    event_file,
    scalars,
    write_all_events,
)

LOG = """{"event":"start","iteration":0}
{"event":"test","iteration":0,"loss":2.3,"accuracy":0.1}
{"event":"progress","iteration":100,"loss":0.5,"lr":0.01,"images_per_second":10.0}
{"event":"snapshot","iteration":100}
{"event":"start","iteration":100}
{"event":"progress","iteration":200,"loss":0.25,"lr":0.009}
{"event":"start","iteration":100}
{"event":"progress","iteration":200,"loss":0.2,"lr":0.009}
{"event":"test","iteration":200,"accuracy":0.9,"finite":false}
{"event":"progr"""
CURVES = [
    Scalar("test/accuracy", 0, 0.1),
    Scalar("test/loss", 0, 2.3),
    Scalar("train/loss", 100, 0.5),
    Scalar("train/lr", 100, 0.01),
    Scalar("test/accuracy", 200, 0.9),
    Scalar("train/loss", 200, 0.2),
    Scalar("train/lr", 200, 0.009),
]


@pytest.mark.parametrize(  # RFC 3720, B.4
    ("content", "crc"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_checksums_are_those_of_the_standard(content: bytes, crc: int) -> None:
    assert crc32c(content) == crc


def _messages(content: bytes) -> list[bytes]:
    """The records' contents, both checksums looked at."""
    found = []
    place = 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        message = content[place + 12 : place + 12 + length]
        for part, at in ((content[place : place + 8], place + 8), (message, place + 12 + length)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
            assert struct.unpack_from("<I", content, at) == (masked,)
        found.append(message)
        place += 16 + length
    return found


def _fields(message: bytes) -> dict[int, bytes]:
    view = memoryview(message)
    return {
        field.number: bytes(view[field.start : field.end])
        for field in fields(view, 0, len(message))
    }


steps = st.integers(0, 10**6)
values = st.floats(width=32, allow_nan=False)


@given(st.lists(st.builds(Scalar, st.text(max_size=20), steps, values), max_size=10))
def test_every_scalar_can_be_read_back(written: list[Scalar]) -> None:
    first, *rest = _messages(event_file(written, 12.5))
    assert _fields(first) == {1: struct.pack("<d", 12.5), 3: b"brain.Event:2"}
    for message, (tag, step, value) in zip(rest, written, strict=True):
        event = _fields(message)
        entry = _fields(_fields(event[5])[1])
        assert entry == {1: tag.encode(), 2: struct.pack("<f", value)}
        number = sum((byte & 127) << 7 * place for place, byte in enumerate(event[2]))
        assert number == step


def test_curves_are_the_logs_last_word_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(LOG)
    assert scalars(RunFolder(tmp_path)) == CURVES


def test_the_curve_of_accuracies_is_named_after_the_judged_layer(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        LOG.replace('"accuracy":0.1', '"accuracy_name":"loss3/top-1","accuracy":0.1')
    )
    assert scalars(RunFolder(tmp_path))[0] == Scalar("test/accuracy/loss3/top-1", 0, 0.1)


def test_each_test_net_has_curves_of_its_own(tmp_path: Path) -> None:
    tests = [
        f'{{"event":"test","iteration":5,"loss":{number},"accuracy_name":"acc","accuracy":0.5,'
        f'"test_net":{number},"test_net_name":"test net #{number}"}}\n'
        for number in (0, 1)
    ]
    (tmp_path / "log.jsonl").write_text("".join(tests))
    assert scalars(RunFolder(tmp_path)) == [
        Scalar("test/accuracy/acc/test net #0", 5, 0.5),
        Scalar("test/accuracy/acc/test net #1", 5, 0.5),
        Scalar("test/loss/test net #0", 5, 0),
        Scalar("test/loss/test net #1", 5, 1),
    ]


def test_every_run_below_a_folder_gets_its_file(tmp_path: Path) -> None:
    for name in ("a/train", "b/train"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "log.jsonl").write_text(LOG)
    written = write_all_events(tmp_path)
    assert written == [tmp_path / name / EVENTS_NAME for name in ("a/train", "b/train")]
    before = written[0].read_bytes()
    assert write_all_events(tmp_path) == written
    assert written[0].read_bytes() == before
    assert len(_messages(before)) == 1 + len(CURVES)


def test_tensorboard_itself_reads_them(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard installed"
    )
    (tmp_path / "log.jsonl").write_text(LOG)
    write_all_events(tmp_path)
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    found = [
        (tag, event.step, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    ]
    assert sorted(found) == [
        (tag, step, pytest.approx(value)) for tag, step, value in sorted(CURVES)
    ]
