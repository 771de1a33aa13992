"""A hook of MkDocs: the reference of the Python API, a page for each room of the package."""

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROOMS = ("formats", "net", "pruning", "convert", "methods")


@dataclass(frozen=True)
class Module:
    """A module of the package with public names."""

    name: str
    summary: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages (MkDocs calls this)."""
    lines = [
        "# Python",
        "",
        "What the commands do is here as functions; each room of the package has a page.",
        "",
    ]
    for room in _ROOMS:
        modules = public_modules(room)
        files.append(_page(config, f"python/{room}.md", room_page(room, modules)))
        lines += [f"## [pycaffe_prune.{room}]({room}.md)", ""]
        lines += [f"- [{found.name}]({room}.md#{found.name}): {found.summary}" for found in modules]
        lines.append("")
    files.append(_page(config, "python/index.md", "\n".join(lines)))
    return files


def _page(config: MkDocsConfig, place: str, text: str) -> File:
    return File.generated(config, place, content=text)


def room_page(room: str, modules: list[Module]) -> str:
    """Return a room's page: each module's docstrings, found by mkdocstrings."""
    return "\n\n".join(
        [f"# pycaffe_prune.{room}", *(f"::: {module.name}" for module in modules), ""]
    )


def public_modules(room: str) -> list[Module]:
    """Return the modules of a room that name what they give away in ``__all__``."""
    spec = importlib.util.find_spec(f"pycaffe_prune.{room}")
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018
    folder = Path(spec.origin).parent
    found = []
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        summary = (ast.get_docstring(tree) or "").split("\n")[0]
        if any(_is_all(node) for node in tree.body):
            dotted = file.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
            found.append(Module(f"pycaffe_prune.{room}.{dotted}", summary))
    return found


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
    )
