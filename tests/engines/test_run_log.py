"""Whatever is in a log, its sound lines are read and the others passed over."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines import base
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_log import appending, json_lines
from pycaffe_prune.reports.outputs.tensorboard import event_file, scalars

TEST = {"event": "test", "iteration": 20, "images": 4, "correct": 3, "accuracy": 0.75}
SOUND = (
    {"event": "start", "versions": {"caffe": "1.0.0"}},
    {"event": "progress", "iteration": 10, "loss": 2.5, "lr": 0.01, "display": True},
    TEST | {"loss": 0.5, "finite": True},
    {"event": "snapshot", "iteration": 20, "seconds": 1.5},
    {"event": "done", "iteration": 20, "revived": 0},
)
DAMAGED = (
    b"\xff\xfe\x00\x80",
    b"null",
    b"[]",
    b'"event"',
    b"{}",
    b'{"event": "test"',
    b'{"event": "test", "iteration": 20}',
    b'{"event": "test", "iteration": 20, "images": "many", "correct": [], "accuracy": {}}',
    b'{"event": "progress", "iteration": "10", "loss": 1}',
    b'{"event": "progress", "iteration": true, "loss": 1}',
    b'{"event": "progress", "iteration": -1, "loss": 1}',
    b'{"event": "progress", "iteration": ' + b"9" * 5000 + b', "loss": 1}',
    b'{"event": "progress", "iteration": 10, "loss": NaN}',
    b'{"event": "progress", "iteration": 10, "loss": 1e999}',
    b'{"event": "progress", "iteration": 10, "loss": "low"}',
    b'{"event": "snapshot", "iteration": 20, "seconds": -1e300}',
    b'{"event": "snapshot", "iteration": 20, "seconds": null}',
    b'{"event": ["start"]}',
    b"[" * 100_000,
    b'{"event": "progress", "iteration": 10, "loss": 1, "x": "' + b"x" * (1 << 21) + b'"}',
)


def read(folder: RunFolder) -> tuple[object, ...]:
    """All that is read of a log."""
    tests = base.tests_in_log(folder, 20)
    curves = scalars(folder)
    event_file(curves, 0)
    return tests, base.losses_in_log(folder), base.seconds_in_log(folder), curves


def written(folder: Path, lines: list[bytes]) -> RunFolder:
    run = RunFolder(folder)
    run.log.write_bytes(b"\n".join(lines))
    return run


def test_damaged_lines_between_sound_ones_are_passed_over_and_counted_once(tmp_path, caplog):
    sound = [json.dumps(line).encode() for line in SOUND]
    (tmp_path / "sound").mkdir()
    whole = read(written(tmp_path / "sound", sound))
    assert whole[1:3] == ({10: 2.5}, 1.5)
    assert not caplog.records
    mixed = [line for pair in zip(DAMAGED, sound * 4, strict=True) for line in pair]
    run = written(tmp_path, mixed[: 2 * len(SOUND)] + list(DAMAGED))
    assert read(run) == whole
    with caplog.at_level(logging.WARNING):
        read(run)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{run.log}: {len(SOUND) + len(DAMAGED)} damaged lines are passed over"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("log")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["iteration", "loss", "lr", "accuracy", "seconds", "images", "correct", "finite", "outputs"]
)
EVENTS = st.sampled_from(["start", "progress", "test", "resumed", "snapshot", "other"])
HOSTILE = st.builds(
    lambda event, fields: json.dumps({"event": event, **fields}).encode(),
    EVENTS | JSON,
    st.dictionaries(FIELDS, JSON | st.integers(0, 30)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.binary(max_size=40) | HOSTILE, max_size=6), cut=st.integers(0, 10))
def test_no_log_makes_its_readers_fail(place, lines, cut):
    content = b"\n".join(lines)
    run = written(place, [content[: max(0, len(content) - cut)]])
    tests, losses, seconds, curves = read(run)
    assert all(0 <= test.iteration <= 20 for test in tests)
    assert seconds >= 0
    assert all(isinstance(loss, float | int) for loss in losses.values())
    assert curves == sorted(curves, key=lambda scalar: (scalar.step, scalar.tag))


def test_a_line_is_appended_after_one_that_was_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    for part in ('{"event": "start"}', '{"event": "do', '{"event": "done"}'):
        with appending(path) as write:
            write(part)
        path.write_bytes(path.read_bytes()[:-1])
    assert [line["event"] for line in json_lines(path)] == ["start", "done"]
    assert list(json_lines(tmp_path / "gone")) == []
