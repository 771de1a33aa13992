"""A module named ``caffe`` in an environment, which gives `pycaffe_prune.pycaffe` in its place."""

import sys
import sysconfig
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from tempfile import NamedTemporaryFile

from pycaffe_prune.errors import PruneError

__all__ = ["install_shim", "shim_path", "uninstall_shim"]

_TEXT = '''"""pycaffe on the engine torch: written by `caffe-prune python --install`.

`caffe-prune python --uninstall` removes it.
"""

import importlib
import sys

from pycaffe_prune.caffe_name.finder import install

del sys.modules[__name__]
install()
importlib.import_module(__name__)
'''


def shim_path() -> Path:
    """Return where this environment's module named ``caffe`` is, or would be."""
    return Path(sysconfig.get_path("purelib"), "caffe.py")


def install_shim(path: Path, *, search: list[str] | None = None, dry_run: bool = False) -> bool:
    """Write the module.

    Args:
        path: Where to; see `shim_path`.
        search: The folders in which another ``caffe`` may be; by default those of this Python,
            but the working folder.
        dry_run: Whether to write nothing, but refuse what would be refused.

    Returns:
        Whether it was not there yet.

    Raises:
        PruneError: The environment has another module of that name, or cannot be written to.
    """
    found = _other_caffe(path, sys.path[1:] if search is None else search)
    if found is not None:
        raise PruneError(
            f"{found}: this environment has a caffe, which is not hidden; "
            "`caffe-prune python SCRIPT` runs a script with pycaffe_prune's beside it"
        )
    if _is_shim(path):
        return False
    if not dry_run:
        _write(path)
    return True


def uninstall_shim(path: Path, *, dry_run: bool = False) -> bool:
    """Remove the module.

    Args:
        path: Where it is; see `shim_path`.
        dry_run: Whether to remove nothing, but refuse what would be refused.

    Returns:
        Whether it was there.

    Raises:
        PruneError: What is there was not written by `install_shim`, or cannot be removed.
    """
    if not path.exists():
        return False
    if not _is_shim(path):
        raise PruneError(f"{path}: not written by `caffe-prune python --install`; it stays")
    if not dry_run:
        try:
            path.unlink()
        except OSError as error:
            raise PruneError(f"{path}: cannot be removed: {error.strerror}") from error
    return True


def _is_shim(path: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") == _TEXT
    return False


def _other_caffe(path: Path, search: list[str]) -> str | None:
    """Where another ``caffe`` is; a folder without ``__init__.py`` is no module anyone wants."""
    spec: ModuleSpec | None = PathFinder.find_spec("caffe", [str(path.parent), *search])
    if spec is None or spec.origin is None or _is_shim(Path(spec.origin)):
        return None
    return spec.origin


def _write(path: Path) -> None:
    """Write the module whole or not at all."""
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".caffe-", delete=False
        ) as file:
            file.write(_TEXT)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise PruneError(f"{path}: cannot be written: {error.strerror}") from error
