"""A private folder with the real Caffe in it, unpacked from Debian 11's packages without root."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from pycaffe_prune.cache import cache_root
from pycaffe_prune.engines.caffe.debian_mirror import find_keyring, find_mirror
from pycaffe_prune.engines.caffe.private_apt import OnProgress, PrivateApt, unpack
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.files import fsync_directory

__all__ = [
    "InstallPlan",
    "InstalledPrefix",
    "default_prefix",
    "install_caffe",
    "launcher_of",
    "plan_install",
    "read_marker",
    "write_launchers",
]

RELEASE = "bullseye"
PACKAGES = ("python3-caffe", "libopenblas0-pthread")
_MARKER = "caffe-prefix.json"
_NEEDED_BYTES = 1 << 30  # 164 MB of packages and what they unpack to, with room to spare
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_NOT_NEEDED = ("doc", "man", "locale", "info", "lintian", "javascript")

# openblas-pthread before the reference BLAS, or Caffe is very slow; usr/lib holds libgdal.
_START = """#!/bin/sh
# Runs a program of this folder with the folder's own loader and libraries, not with the host's.
self=$(readlink -f "$0") || exit 127
prefix=${self%/bin/*}
lib=$prefix/usr/lib/x86_64-linux-gnu
unset PYTHONPATH LD_PRELOAD
path=$prefix/lib/x86_64-linux-gnu:$lib/openblas-pthread:$lib/hdf5/serial:$lib:$prefix/usr/lib
"""
_PYTHON = """export PYTHONHOME="$prefix/usr" PYTHONNOUSERSITE=1
exec "$prefix/lib/x86_64-linux-gnu/ld-2.31.so" --library-path "$path" \\
  "$prefix/usr/bin/python3.9" "$@"
"""
_TOOL = """[ $# -gt 0 ] || { echo "usage: caffe-tool NAME [ARGUMENT...]" >&2; exit 2; }
tool=$prefix/usr/bin/$1
[ -x "$tool" ] || { echo "caffe-tool: $tool: no such program" >&2; exit 127; }
shift
exec "$prefix/lib/x86_64-linux-gnu/ld-2.31.so" --library-path "$path" "$tool" "$@"
"""


class InstalledPrefix(BaseModel):
    """What a finished prefix says of itself, in ``caffe-prefix.json``."""

    release: str
    packages: dict[str, str]
    installed_at: datetime
    bytes_unpacked: int
    bytes_kept: int


class InstallPlan(BaseModel):
    """What an installation would do; nothing when the prefix is complete already."""

    already_installed: bool
    mirror: str | None
    release: str
    packages: int
    packages_to_download: int
    bytes_to_download: int
    prefix: Path


def default_prefix() -> Path:
    """Return where the private Caffe is installed unless the user says otherwise."""
    return cache_root() / "caffe-bullseye"


def launcher_of(prefix: Path) -> Path:
    """Return the path of the prefix's Python launcher (which need not exist)."""
    return prefix / "bin" / "caffe-python"


def read_marker(prefix: Path) -> InstalledPrefix | None:
    """Return what a finished prefix says of itself; None when it is not there or not readable."""
    try:
        return InstalledPrefix.model_validate_json((prefix / _MARKER).read_bytes())
    except (OSError, ValidationError):
        return None


def plan_install(
    prefix: Path, *, mirror: str | None, on_progress: OnProgress, extra_packages: Sequence[str] = ()
) -> InstallPlan:
    """Say what `install_caffe` would download. Reads the mirror's package lists (about 8 MB).

    Raises:
        EngineError: As `install_caffe`.
    """
    if _is_complete(prefix, extra_packages):
        return InstallPlan(
            already_installed=True,
            mirror=None,
            release=RELEASE,
            packages=0,
            packages_to_download=0,
            bytes_to_download=0,
            prefix=prefix,
        )
    _check_host()
    names = [*PACKAGES, *extra_packages]
    with _locked(cache_root() / "apt.lock", on_progress):
        try:
            apt = _private_apt(mirror)
        except OSError as error:
            raise EngineError(f"{cache_root()}: cannot be written to: {error}") from error
        apt.update(on_progress)
        packages = apt.list_packages(names)
        missing = apt.missing(packages)
    return InstallPlan(
        already_installed=False,
        mirror=apt.mirror,
        release=RELEASE,
        packages=len(packages),
        packages_to_download=len(missing),
        bytes_to_download=sum(package.size for package in missing),
        prefix=prefix,
    )


def install_caffe(
    prefix: Path, *, mirror: str | None, on_progress: OnProgress, extra_packages: Sequence[str] = ()
) -> Path:
    """Install Debian 11's Caffe with pycaffe into ``prefix``, without root; once is enough.

    A call that was cut off is gone on with by the next; the prefix appears whole or not at all.
    The package ``caffe`` (1.6 MB) in ``extra_packages`` adds the command-line tools, run with
    ``PREFIX/bin/caffe-tool NAME ARGUMENT…``.

    Args:
        prefix: The folder to make. It may be moved later, as a whole.
        mirror: The Debian mirror, or None to find one (see `debian_mirror.find_mirror`).
        on_progress: Called with each step and how much of it is done.
        extra_packages: Further packages of the same Debian release.

    Returns:
        The launcher ``PREFIX/bin/caffe-python``, to be used as a Python interpreter.

    Raises:
        EngineError: The host cannot do this, the download failed, the signature is wrong, the
            disk is full, or ``prefix`` is a folder that holds something else.
    """
    prefix = prefix.absolute()
    # First without the lock: a finished prefix may lie where this user cannot write.
    if _is_complete(prefix, extra_packages):
        return launcher_of(prefix)
    _check_host()
    with _locked(prefix.with_name(f"{prefix.name}.lock"), on_progress):
        if _is_complete(prefix, extra_packages):
            return launcher_of(prefix)
        with _locked(cache_root() / "apt.lock", on_progress):
            try:
                _check_place(prefix)
                _install(prefix, [*PACKAGES, *extra_packages], mirror, on_progress)
            except OSError as error:
                raise EngineError(f"{prefix}: could not be installed: {error}") from error
    return launcher_of(prefix)


def _install(
    prefix: Path, names: Sequence[str], mirror: str | None, on_progress: OnProgress
) -> None:
    apt = _private_apt(mirror)
    apt.update(on_progress)
    packages = apt.list_packages(names)
    files = apt.download(names, packages, on_progress)
    for stale in prefix.parent.glob(f".{prefix.name}.partial-*"):
        shutil.rmtree(stale)  # of a run that was killed: we hold the lock
    partial = Path(tempfile.mkdtemp(dir=prefix.parent, prefix=f".{prefix.name}.partial-"))
    try:
        partial.chmod(0o755)
        _unpack_all(files, partial, on_progress)
        unpacked = _bytes_in(partial)
        for name in _NOT_NEEDED:
            shutil.rmtree(partial / "usr/share" / name, ignore_errors=True)
        _make_links_relative(partial)
        write_launchers(partial)
        on_progress("importing caffe", None)
        _check_import(launcher_of(partial))
        marker = InstalledPrefix(
            release=RELEASE,
            packages={package.name: package.version for package in packages},
            installed_at=datetime.now(UTC),
            bytes_unpacked=unpacked,
            bytes_kept=_bytes_in(partial),
        )
        (partial / _MARKER).write_text(marker.model_dump_json(indent=2) + "\n", encoding="utf-8")
        on_progress("writing to disk", None)
        os.sync()
        _replace(partial, prefix)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(apt.folder)


def _private_apt(mirror: str | None) -> PrivateApt:
    folder = cache_root().absolute() / "apt"
    return PrivateApt(folder, find_mirror(mirror, folder), RELEASE, find_keyring(folder))


def _unpack_all(files: Sequence[Path], folder: Path, on_progress: OnProgress) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = pool.map(lambda file: unpack(file, folder), files)
        try:
            for count, _ in enumerate(done, start=1):
                on_progress("unpacking", count / len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or leaving the block would wait for them all
            raise


def _make_links_relative(prefix: Path) -> None:
    """Point absolute links into the prefix: as they are they lead to the host's own files."""
    for folder, folders, files in os.walk(prefix):
        for path in (Path(folder, name) for name in folders + files):
            if path.is_symlink() and (target := path.readlink()).is_absolute():
                inside = os.path.relpath(prefix / target.relative_to("/"), folder)
                path.unlink()
                path.symlink_to(inside)


def write_launchers(prefix: Path) -> None:
    """Write ``bin/caffe-python`` and ``bin/caffe-tool`` into ``prefix``."""
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    for path, body in (
        (launcher_of(prefix), _PYTHON),
        (prefix / "bin" / "caffe-tool", _TOOL),
    ):
        path.write_text(_START + body, encoding="utf-8")
        path.chmod(0o755)


def _replace(partial: Path, prefix: Path) -> None:
    """Put the new prefix in the place of an old one, if there is one."""
    if prefix.exists():
        old = Path(tempfile.mkdtemp(dir=prefix.parent, prefix=f".{prefix.name}.partial-"))
        prefix.rename(old / "old")
        partial.rename(prefix)
        shutil.rmtree(old)
    else:
        partial.rename(prefix)
    fsync_directory(prefix.parent)


def _is_complete(prefix: Path, extra_packages: Sequence[str]) -> bool:
    marker = read_marker(prefix)
    if marker is None or not {*PACKAGES, *extra_packages} <= marker.packages.keys():
        return False
    try:
        _check_import(launcher_of(prefix))
    except EngineError:
        return False
    return True


def _check_import(launcher: Path) -> None:
    # What is compiled now is kept, whatever the environment says of bytecode: no package here was
    # set up by its own scripts, and a start from sources takes more than twice as long.
    environment = {key: value for key, value in os.environ.items() if key != _NO_BYTECODE}
    try:
        done = subprocess.run(
            [str(launcher), "-c", "import caffe"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=300,
            env={**environment, "GLOG_minloglevel": "2"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{launcher}: does not run: {error}") from error
    if done.returncode != 0:
        reason = "; ".join(done.stderr.strip().splitlines()[-3:]) or f"status {done.returncode}"
        raise EngineError(f"{launcher}: caffe cannot be imported: {reason}")


def _check_host() -> None:
    """Raise EngineError unless this host can run amd64 Debian programs and has Debian's tools."""
    remedy = (
        "install Caffe in a container or with conda instead (see docs/real-caffe.md) and name its "
        "interpreter with --caffe-python or $CAFFE_PYTHON"
    )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise EngineError(
            f"the private Caffe needs x86-64 Linux, this is {platform.system()} on "
            f"{platform.machine()}; {remedy}"
        )
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EngineError(f"{tool}: not found, so this is no Debian or Ubuntu; {remedy}")


def _check_place(prefix: Path) -> None:
    empty = prefix.is_dir() and not any(prefix.iterdir())
    if prefix.exists() and not empty and read_marker(prefix) is None:
        raise EngineError(
            f"{prefix}: holds something else than the private Caffe; remove it or choose another "
            "folder with --prefix"
        )
    for folder in (prefix.parent, cache_root()):
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < _NEEDED_BYTES:
            raise EngineError(f"{folder}: less than 1 GiB is free; free some space and try again")


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock file ``path``; when somebody else has it, say so and wait."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_progress("waiting for another installation", None)
            lock.acquire()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
