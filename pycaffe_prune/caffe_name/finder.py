"""The name ``caffe`` for this package, for as long as it is wanted.

Installed by ``caffe-prune python`` and by tests, never by importing `pycaffe_prune`: another
``caffe`` of the same environment keeps its name until a user asks for ours.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from pycaffe_prune.errors import PruneError

__all__ = ["CaffeFinder", "install", "installed", "uninstall"]

_PACKAGE = "pycaffe_prune.pycaffe"


class _AliasLoader(Loader):
    """Gives a module of `pycaffe_prune.pycaffe` under its other name: the same object."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 (the protocol's)
        module = importlib.import_module(self._target)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into the module.
        module.__spec__ = self._own_spec


class CaffeFinder(MetaPathFinder):
    """Finds ``caffe`` and ``caffe.X`` in `pycaffe_prune.pycaffe`, as the same module objects."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (the protocol's)
        target: ModuleType | None = None,  # noqa: ARG002 (the protocol's)
    ) -> ModuleSpec | None:
        """Return the spec of ``caffe`` or of a module in it, None for any other name."""
        if fullname != "caffe" and not fullname.startswith("caffe."):
            return None
        aliased = _PACKAGE + fullname.removeprefix("caffe")
        found = importlib.util.find_spec(aliased)
        if found is None:
            return None
        spec = ModuleSpec(fullname, _AliasLoader(aliased), origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec


def install() -> CaffeFinder:
    """Make ``import caffe`` mean this package in this process.

    Raises:
        PruneError: Another module named ``caffe`` is imported already.
    """
    loaded = sys.modules.get("caffe")
    if loaded is not None and loaded.__name__ != _PACKAGE:
        raise PruneError(
            f"{getattr(loaded, '__file__', None) or 'a module'} is imported as caffe already: "
            "start a new process for pycaffe_prune's caffe"
        )
    finder = CaffeFinder()
    sys.meta_path.insert(0, finder)
    return finder


def uninstall(finder: CaffeFinder) -> None:
    """Undo `install`: the finder and the names that it gave go, the modules stay."""
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name == "caffe" or name.startswith("caffe.")]:
        del sys.modules[name]


@contextmanager
def installed() -> Iterator[None]:
    """``import caffe`` means this package inside the ``with``, and what it meant before after it.

    Raises:
        PruneError: As `install`.
    """
    finder = install()
    try:
        yield
    finally:
        uninstall(finder)
