"""A hook of MkDocs: the reference of the command line, from click's own objects."""

from collections.abc import Iterator
from html import escape
from inspect import cleandoc

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pycaffe_prune.cli import cli

_INTRODUCTION = (
    "What `--help` of each command says. A test holds the examples here against the commands' "
    "options; those on the other pages it runs."
)
_AS_WRITTEN = "\b\n"  # begins a paragraph that click does not wrap: examples


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page (MkDocs calls this)."""
    context = click.Context(cli, info_name="caffe-prune")
    text = "\n".join(["# The command line", "", _INTRODUCTION, "", *section(cli, context)])
    files.append(File.generated(config, "commands.md", content=text))
    return files


def section(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the lines of a command's section and of those below it."""
    depth = context.command_path.count(" ") + 2
    yield from ["#" * depth + f" {context.command_path}", ""]
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        yield from (*shown(paragraph), "")
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ["```text", f"{context.command_path} {usage}", "```", ""]
    yield from options(command, context)
    if command.epilog:
        yield from [escape(command.epilog), ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from section(below, click.Context(below, info_name=name, parent=context))


def shown(paragraph: str) -> list[str]:
    """Return a paragraph of a command's help, as code where click leaves its lines alone."""
    if not paragraph.startswith(_AS_WRITTEN):
        return [escape(paragraph, quote=False)]
    first, *rest = paragraph.removeprefix(_AS_WRITTEN).split("\n")
    return [first, "", "```text", *(line.removeprefix("  ") for line in rest), "```"]


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the table of a command's options, each as ``--help`` has it."""
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None
    ]
    if records:
        yield from ["| option | |", "|---|---|"]
        for names, text in records:
            yield f"| <code>{_cell(names)}</code> | {_cell(text)} |"
        yield ""


def _cell(text: str) -> str:
    """Return a text on one line, with nothing in it that ends a cell."""
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
