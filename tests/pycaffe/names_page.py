"""Makes docs/pycaffe-names.md: the names of the real pycaffe, and ours beside them.

    caffe-prune python --engine caffe tests/pycaffe/real_names.py | \
        python -m tests.pycaffe.names_page > docs/pycaffe-names.md
"""

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from pycaffe_prune.pycaffe.io import Transformer
from pycaffe_prune.pycaffe.net_spec import Function, Top

__all__ = ["LEFT_OUT", "Names", "missing", "page"]

Names = Mapping[str, Sequence[str]]
"""By module and class what ``dir`` tells of it."""

LEFT_OUT = {
    "__instance_size__": "Boost.Python's note of how large an object is",
    "_Transformer__check_input": "a private method of the class (two underscores), which Python "
    "hides under this name; ours checks elsewhere",
}
"""Names that are not here, and why."""

_EVERY_OBJECT = frozenset(dir(type("Plain", (), {}))) | frozenset(dir(Exception))
_EVERY_MODULE = frozenset(dir(ModuleType("plain"))) | frozenset(
    ("__builtins__", "__cached__", "__file__", "__path__", "__warningregistry__")
)
_OBJECTS = {
    "caffe.io.Transformer": lambda: Transformer({"data": (1, 3, 4, 4)}),
    "caffe.net_spec.Function": lambda: Function("Power", (), {}),
    "caffe.net_spec.Top": lambda: Top(Function("Power", (), {}), 0),
}
"""Where names are those of an object, which has some besides its class's."""
_HEAD = """# Every name of pycaffe, and ours

What `dir()` tells of the real module (Debian's Caffe 1.0.0), of its modules and of its classes,
and what is here. A test fails if a name is missing here without a reason below, or if this page
is not what the two modules tell (`make pycaffe-names` makes it). Not counted is what is not
pycaffe's: the names that Python gives every module, class and exception (`__name__`,
`__reduce__`, `with_traceback`), and what pycaffe's modules import from elsewhere (`np`, `os`).

Of a class that has another as its base only what it has besides is listed; of a Transformer, a
Function and a Top what objects have. What ours has more is in the last column.
"""


def ours(where: str) -> object:
    """Return our module or class of a name of pycaffe's."""
    parts = where.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(["pycaffe_prune.pycaffe", *parts[1:length]])
        try:
            found: object = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(where)


def counted(names: Sequence[str]) -> list[str]:
    """Return the names that are pycaffe's."""
    return sorted(set(names) - _EVERY_OBJECT - _EVERY_MODULE)


def here(where: str) -> set[str]:
    """Return all names of ours."""
    return set(dir(_OBJECTS[where]() if where in _OBJECTS else ours(where)))


def missing(theirs: Names) -> list[str]:
    """Return the names of pycaffe's that are not here, and without a reason."""
    for where in theirs:  # which makes submodules names of their package, there as here
        ours(where)
    return [
        f"{where}.{name}"
        for where, names in theirs.items()
        for name in counted(names)
        if name not in here(where) and name not in LEFT_OUT
    ]


def page(theirs: Names) -> str:
    """Return the page."""
    assert not missing(theirs)
    return "\n".join([_HEAD, *_reasons(theirs), *_places(theirs)])


def _reasons(theirs: Names) -> Iterator[str]:
    yield "## Names that are not here"
    yield ""
    yield "| name | of | why |"
    yield "|---|---|---|"
    for name, why in LEFT_OUT.items():
        places = [where for where, names in theirs.items() if name in names]
        told = _listed(places) if len(places) < 4 else f"{len(places)} classes, `{places[0]}` first"
        yield f"| `{name}` | {told} | {why} |"
    yield ""


def _places(theirs: Names) -> Iterator[str]:
    yield "## Names of both"
    yield ""
    yield "| | pycaffe's, all of them here too | ours alone |"
    yield "|---|---|---|"
    for where, names in theirs.items():
        bases = _bases(where, theirs)
        inherited = {name for base in bases for name in theirs[base]}
        own = [name for name in counted(names) if name not in inherited | LEFT_OUT.keys()]
        more = sorted(_public(where) - set(names) - {n for base in bases for n in _public(base)})
        told = f"those of {_listed(bases)}; " if bases else ""
        yield f"| `{where}` | {told}{_listed(own) or 'no more'} | {_listed(more)} |"


def _bases(where: str, theirs: Names) -> list[str]:
    """The classes among those listed that a class has as its bases."""
    kind = ours(where)
    if not isinstance(kind, type):
        return []
    others = {other: ours(other) for other in theirs if other != where}
    found = [other for other, base in others.items() if base in kind.__mro__ and base is not kind]
    return found[:1]


def _public(where: str) -> set[str]:
    held = ours(where)
    names = getattr(held, "__all__", None) if isinstance(held, ModuleType) else here(where)
    return {name for name in names or () if not name.startswith("_")} - _EVERY_OBJECT - {*dir(list)}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(page(json.load(sys.stdin)) + "\n")
