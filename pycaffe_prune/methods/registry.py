"""All methods there are: the modules of this package, and those that other packages bring.

Another package brings a method by an entry point of the group ``pycaffe_prune.methods`` that names
its `Method` class (docs/extending.md). What is installed is trusted, as all installed code is.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

import pycaffe_prune.methods
from pycaffe_prune.errors import FormatError
from pycaffe_prune.methods.base import Method

__all__ = ["ENTRY_POINTS", "method_of", "methods"]

ENTRY_POINTS = "pycaffe_prune.methods"
"""The group of entry points."""
_NO_METHODS = frozenset({"base", "registry"})


@cache
def methods() -> Mapping[str, type[Method]]:
    """Return the methods by kind: this package's by name of module, then others'.

    Raises:
        FormatError: A package brings something else, or two methods are of one kind.
    """
    found: dict[str, type[Method]] = {}
    for method in (*_own(), *_brought()):
        kind = method.model_fields["kind"].default
        if kind in found:
            raise FormatError(
                f"two methods are called '{kind}': {found[kind].__module__} and {method.__module__}"
            )
        found[kind] = method
    return MappingProxyType(found)


def _own() -> Iterator[type[Method]]:
    for module in sorted(info.name for info in iter_modules(pycaffe_prune.methods.__path__)):
        if module not in _NO_METHODS:
            content = vars(import_module(f"{pycaffe_prune.methods.__name__}.{module}"))
            yield from (
                value
                for value in content.values()
                if isinstance(value, type)
                and issubclass(value, Method)
                and value.__module__ == content["__name__"]
                and "kind" in value.model_fields
                and isinstance(value.model_fields["kind"].default, str)
            )


def _brought() -> Iterator[type[Method]]:
    for point in entry_points(group=ENTRY_POINTS):
        try:
            method = point.load()
        except Exception as error:
            raise FormatError(
                f"the method '{point.name}' of {point.value} cannot be loaded: {error}"
            ) from error
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise FormatError(f"the entry point '{point.name}', {point.value}, is no Method")
        yield method


def method_of(table: Mapping[str, Any]) -> Method:
    """Return the method that a ``[[methods]]`` table describes.

    Raises:
        ValueError: It has no kind, or one that is not known.
        pydantic.ValidationError: A setting is missing, misspelt or out of range.
    """
    kind = table.get("kind")
    known = methods()
    if not isinstance(kind, str) or kind not in known:
        told = "no kind is given" if kind is None else f"no method is of the kind '{kind}'"
        raise ValueError(f"{told}; there are: {', '.join(sorted(known))}")
    return known[kind].model_validate(table)
