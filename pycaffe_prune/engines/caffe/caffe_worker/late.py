"""Modules that are loaded when something of theirs is asked for."""

import sys
from importlib.machinery import PathFinder


def import_late(name):
    """Let ``import name`` cost nothing until an attribute of the module is read.

    The standard library's ``LazyLoader`` reads the file when the module is imported a second time.
    Python 3.6 has no ``__getattr__`` of modules: there the import is as it always was.
    """
    if sys.version_info >= (3, 7):
        sys.meta_path.insert(0, _Finder(name))


class _Finder:
    def __init__(self, name):
        self._name = name

    def find_spec(self, name, path, target=None):  # noqa: ARG002 (importlib's signature)
        spec = PathFinder.find_spec(name, path) if name == self._name else None
        if spec and spec.loader:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        def load(name):
            del module.__getattr__  # what asks for itself meanwhile finds what there is by then
            try:
                self._loader.exec_module(module)
            except BaseException:
                module.__getattr__ = load
                raise
            return getattr(module, name)

        module.__getattr__ = load
