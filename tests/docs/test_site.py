"""The site holds every page, and a link that leads nowhere is named."""

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

from pycaffe_prune.cli import cli

SITE = Path(__file__).parents[2] / "docs" / "site"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", SITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_holds_every_page_and_what_pages_link_to() -> None:
    build = load("build")
    files = build.site_files()
    assert set((build.ROOT / "docs").glob("*.md")) <= files
    assert build.ROOT / "results" / "lenet-300-100" / "figure.png" in files
    assert build.ROOT / "CHANGELOG.md" in files


def test_a_link_to_nothing_is_named(tmp_path: Path, monkeypatch) -> None:
    build = load("build")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("[there](https://example.org/x) [gone](other.md#part)")
    with pytest.raises(FileNotFoundError, match=r"page\.md links to other\.md"):
        list(build.linked(page))


def test_every_command_and_option_has_its_line() -> None:
    pages = load("command_pages")
    context = click.Context(cli, info_name="caffe-prune")
    text = "\n".join(pages.section(cli, context))
    for name in cli.list_commands(context):
        assert f"\n### caffe-prune {name}\n" in text
    assert "\n#### caffe-prune prune units\n" in text
    assert "\b" not in text
    assert text.count("| <code>--") > 200


def test_every_room_of_the_api_has_its_modules() -> None:
    modules = load("python_pages").public_modules("pruning")
    assert "pycaffe_prune.pruning.connections" in {module.name for module in modules}
    assert all(module.summary for module in modules)
