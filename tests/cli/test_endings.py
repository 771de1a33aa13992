"""How commands end: one sentence and a code, whatever is raised and wherever output goes."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pycaffe_prune.cli import cli
from pycaffe_prune.cli.endings import FAULT, exit_code
from pycaffe_prune.errors import InterruptedRunError, PruneError

NET = Path(__file__).parents[1] / "cases" / "group_multiplier.prototxt"


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


ENDS: dict[str, tuple[BaseException, int, str]] = {
    "input": (PruneError("a\x1b: is \nbad"), 1, r"caffe-prune: a\x1b: is \nbad"),
    "file": (PermissionError(errno.EACCES, "No", "a\x07"), 1, r"caffe-prune: a\x07: No"),
    "memory": (MemoryError(), 1, "caffe-prune: there is not enough memory for this"),
    "not UTF-8": (
        UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"),
        1,
        r"caffe-prune: 'a\xff' is not UTF-8, as it must be here",
    ),
    "option": (click.UsageError("what is \x07?"), 2, r"Error: what is \x07?"),
    "stopped": (InterruptedRunError("stopped"), 130, "stopped"),
    "abort": (click.Abort(), 130, "caffe-prune: interrupted"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "caffe-prune: interrupted"),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_users_and_machines_are_at_fault_for_is_one_sentence(
    end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, sentence = ENDS[end]
    assert exit_code(raising(error)) == code
    assert capsys.readouterr().err == f"{sentence}\n"


def test_a_command_gives_its_own_code() -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 3) == 3
    assert exit_code(raising(click.exceptions.Exit(4))) == 4


@pytest.mark.parametrize("error", [RecursionError("deep"), KeyError("\x1b"), AssertionError()])
def test_what_is_left_is_a_fault_with_a_file_to_report(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["caffe-prune", "inspect", "a b", "\udcff"])
    assert exit_code(raising(error)) == FAULT == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert f"fault of caffe-prune ({type(error).__name__}" in said
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said
    text = kept.read_text(encoding="utf-8")
    for part in (
        "Traceback",
        type(error).__name__,
        "numpy ",
        r"inspect 'a b' '\udcff'",
        "Python 3",
    ):
        assert part in text


def test_a_fault_is_said_where_no_file_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert exit_code(raising(ValueError("x"))) == FAULT
    assert "no report of it could be written" in capsys.readouterr().err


def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own: what Python does as it ends counts too."""
    command = [sys.executable, "-m", "pycaffe_prune", *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=120, **settings)  # type: ignore[call-overload,no-any-return]


def test_a_full_disk_behind_standard_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("inspect", NET, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "caffe-prune: the output cannot be written: No space left on device\n"
    )


def test_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("inspect", NET, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_stream_of_ascii_gets_tables_and_codes(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(NET.read_text().replace('"c1"', '"größe"'))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run("inspect", net, "\udcff", env=environment, capture_output=True)
    assert done.returncode == 1
    assert re.search(rb"gr\\xf6\\xdfe", done.stdout)
    assert done.stdout.isascii()
    assert done.stderr.startswith(rb"caffe-prune: \xff: no such file")


def test_a_run_in_a_folder_whose_name_is_not_utf_8_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["train", "--solver", "s", "--out", f"{tmp_path}/o\udcff/t"]
    assert exit_code(lambda: cli(wanted, standalone_mode=False)) == 1
    assert r"o\xff/t: the name is not UTF-8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
