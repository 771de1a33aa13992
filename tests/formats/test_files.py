import bz2
import errno
import gzip
import hashlib
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.files import (
    atomic_write,
    existing_file,
    fsync_directory,
    sha256_of,
    stands_for,
    write_text,
)
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.weights import read_weights

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class BrokenOffError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(before=st.none() | st.binary(), after=st.binary())
def test_the_file_has_the_new_content_and_nothing_else_is_left(
    tmp_path: Path, before: bytes | None, after: bytes
) -> None:
    path = tmp_path / "model.caffemodel"
    path.unlink(missing_ok=True)
    if before is not None:
        path.write_bytes(before)
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_bytes(after)
        assert (path.read_bytes() if path.exists() else None) == before
    assert path.read_bytes() == after
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [BrokenOffError(), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_keeps_what_was_there(
    tmp_path: Path, error: BaseException, before: bytes | None
) -> None:
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_bytes(before)

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert (path.read_bytes() if path.exists() else None) == before
    assert names(tmp_path) == ([] if before is None else ["a.txt"])


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "the disk is full; nothing was written"),
        (errno.EDQUOT, "the disk is full; nothing was written"),
        (errno.EROFS, "this folder cannot be written to"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_failing_disk_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, sentence: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail)
    with pytest.raises(PruneError, match=f"^{path}: {sentence}"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def python(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


TOO_LARGE = """
import resource, sys
from pathlib import Path
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "new" * 1000)
except PruneError as error:
    sys.exit(str(error))
"""


def test_a_write_that_the_system_cuts_off_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    done = python(TOO_LARGE, path)
    assert done.returncode == 1
    assert done.stderr == f"{path}: {os.strerror(errno.EFBIG)}\n"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pycaffe_prune.formats.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    assert python(KILLED, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_text(path, "new")  # what the dead one left is in nobody's way
    assert path.read_bytes() == b"new"
    left = [name for name in names(tmp_path) if name != "a.txt"]
    assert all(name.startswith(".a.partial-") for name in left)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_the_users_umask_decides_who_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "")
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    mode = (tmp_path / "a.txt").stat().st_mode
    assert mode == (tmp_path / "plain").stat().st_mode
    assert mode & 0o777 == 0o666 & ~umask


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "")
    assert (tmp_path / "a" / "b" / "c.txt").is_file()


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.txt"
    with pytest.raises(PruneError, match=f"^{path}: "):
        write_text(path, "")
    with pytest.raises(PruneError, match=f"^{tmp_path}: "):
        write_text(tmp_path, "a folder is no file")
    assert names(tmp_path) == ["file"]


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(text=st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])))
def test_text_is_utf8(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_bytes() == text.encode()


def test_a_file_that_exists_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert existing_file(tmp_path / "a", "a net") == tmp_path / "a"


def test_what_is_no_file_is_told_with_what_is_needed(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / ("long" * 100), os.strerror(errno.ENAMETOOLONG)),
    ):
        with pytest.raises(FormatError, match=f"^{path}: {reason}; a net is needed$"):
            existing_file(path, "a net")


@pytest.mark.parametrize("name", ["net.prototxt", "weights.caffemodel", "mean.binaryproto"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html>\n<title>404</title>", "HTML page"),
        (b"<HTML><head>", "HTML page"),
        (gzip.compress(b"layer {}", mtime=0), r"packed \(gzip\)"),
        (bz2.compress(b"layer {}"), r"packed \(bzip2\)"),
        (lzma.compress(b"layer {}"), r"packed \(xz\)"),
    ],
)
def test_what_was_saved_in_a_files_place_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    read = {"net.prototxt": read_net, "weights.caffemodel": read_weights}.get(name, read_mean)
    with pytest.raises(FormatError, match=f"^{path}: is (a|an)? ?{what}"):
        read(path)


def test_archives_are_called_so_and_arrays_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("layer {}")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.txt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    kinds = {name: stands_for(tmp_path / name) for name in ("a.tar", "a.zip", "a.npz", "a.txt")}
    assert kinds == {
        "a.tar": "is a tar archive; unpack it first",
        "a.zip": "is a zip archive; unpack it first",
        "a.npz": None,
        "a.txt": None,
    }


def test_a_folder_that_is_not_there_cannot_be_made_durable(tmp_path: Path) -> None:
    fsync_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsync_directory(tmp_path / "none")


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(content=st.binary())
def test_sha256_is_that_of_the_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
