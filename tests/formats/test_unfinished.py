"""What a killed process was writing goes with the next write; what is being written stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from pycaffe_prune.formats import unfinished
from pycaffe_prune.formats.files import write_text

_DIE = """
import os, sys
from pathlib import Path
from pycaffe_prune.formats.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("there", flush=True)
    sys.stdin.read(1)
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """As in a process that has written nothing yet."""
    monkeypatch.setattr(unfinished, "_tidied", set())


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_the_next_write_removes_what_a_killed_one_left_and_no_other(tmp_path, monkeypatch):
    for name in (".notes.partial-old", ".a.partial", ".b.partial-ABCDEFGH.txt"):
        (tmp_path / name).write_text("a stranger's")
    strangers = hidden(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _DIE, str(tmp_path / "one.txt")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"there\n"
        write_text(tmp_path / "two.txt", "whole")
        assert len(hidden(tmp_path)) == len(strangers) + 1  # its writer lives
        process.kill()
    monkeypatch.setattr(unfinished, "_tidied", set())
    write_text(tmp_path / "two.txt", "whole again")
    assert hidden(tmp_path) == strangers
    assert (tmp_path / "two.txt").read_text() == "whole again"


def test_a_file_that_was_tidied_up_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    made = []

    def lock(handle):
        made.append(handle)
        if len(made) == 1:
            for path in tmp_path.iterdir():
                path.unlink()

    monkeypatch.setattr(unfinished, "_lock", lock)
    write_text(tmp_path / "one.txt", "whole")
    assert len(made) == 2
    assert (tmp_path / "one.txt").read_text() == "whole"
