"""Every string that reaches a terminal goes through one gate."""

import ast
from pathlib import Path

import pytest
from rich.table import Table

import data_prep
import pycaffe_prune
from pycaffe_prune.screen import Screen, echo
from tests.nasty import NASTY, assert_nothing_hidden

SOURCES = [
    path
    for package in (data_prep, pycaffe_prune)
    for path in sorted(Path(package.__path__[0]).rglob("*.py"))
    if path.name != "screen.py"
]


def _calls(tree: ast.AST) -> list[str]:
    """What prints or makes printers, by the way that the code has it."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("click.echo", "click.secho", "Console", "TextColumn", "Text")
    ]


def test_nothing_prints_past_the_gate() -> None:
    """JSON is for programs: `json.dumps` writes it in ASCII."""
    past = {
        f"{path.name}: {call}"
        for path in SOURCES
        for call in _calls(ast.parse(path.read_text(encoding="utf-8")))
        if not call.startswith("click.echo(json.dumps(") or "ensure_ascii" in call
    }
    assert past == set()


@pytest.mark.parametrize("name", NASTY)
def test_names_are_seen_wherever_they_stand(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    Screen(width=100).print(table, name)
    Screen(stderr=True, width=100).print(name)
    echo(name)
    said = capsys.readouterr()
    assert_nothing_hidden(said.out)
    assert said.out.count(NASTY[name]) == 6
    assert said.err == f"{NASTY[name]}\n"
