"""Commands that pages and help texts show are commands that there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pycaffe_prune.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"]

_BLOCK = re.compile(r"^```(?:console|sh|bash|text)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL_ENDS = {"|", ">", "2>", "&&", ";", "||", "<", "&"}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each ``caffe-prune`` command of a text, without what the shell does with it."""
    for line in re.sub(r"\\\n\s*", "", text).split("\n"):
        found = re.match(r"\s*\$?\s*(?:[A-Z_]+=\S+ )*(?:\S*/)?caffe-prune (?!v?\d)(.*)", line)
        if found is None:
            continue
        words = shlex.split(found[1], comments=True)
        ends = [place for place, word in enumerate(words) if word in _SHELL_ENDS]
        yield words[: ends[0]] if ends else words


def in_page(page: Path) -> list[list[str]]:
    return [words for block in _BLOCK.findall(page.read_text()) for words in commands_in(block)]


def every_command(
    command: click.Command = cli, context: click.Context | None = None
) -> Iterator[tuple[click.Command, click.Context]]:
    context = context or click.Context(cli, info_name="caffe-prune")
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from every_command(below, click.Context(below, info_name=name, parent=context))


def parse(words: list[str]) -> None:
    """Let click read a command; what its paths and values are is not looked at."""
    command: click.Command = cli
    context = click.Context(cli, info_name="caffe-prune")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(context, words[0])
        assert below is not None, f"{context.command_path} has no command {words[0]}"
        command, context = below, click.Context(below, info_name=words[0], parent=context)
        words = words[1:]
    if not any(word.isupper() and word.startswith("[") for word in words):
        command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_of_a_page_has_the_options_that_it_is_shown_with(page: Path) -> None:
    for words in in_page(page):
        parse(words)


def test_pages_show_many_commands() -> None:
    assert sum(len(in_page(page)) for page in PAGES) > 60


@pytest.mark.parametrize("command", list(every_command()), ids=lambda pair: pair[1].command_path)
def test_a_command_of_a_help_text_has_the_options_that_it_is_shown_with(command) -> None:
    shown = list(commands_in(command[0].help or ""))
    for words in shown:
        parse(words)
    assert shown or isinstance(command[0], click.Group), "a command's help has an example"


def test_an_option_that_there_is_not_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["prune", "units", "--no-such-option", "1"])
    with pytest.raises(AssertionError, match="has no command prun"):
        parse(["prun", "units"])
