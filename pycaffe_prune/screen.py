"""What reaches a terminal: every string through one gate, where nothing of it is markup or code."""

from typing import Any

import click
from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from pycaffe_prune.shown import shown

__all__ = ["PlainColumn", "Screen", "echo", "plain"]


def echo(sentence: str, *, err: bool = False) -> None:
    """Print one line; what cannot be seen is shown by its code (`shown`)."""
    click.echo(shown(sentence), err=err)


def plain(text: str, style: str = "") -> Text:
    """Return a name or sentence as rich's text, as `shown`."""
    return Text(shown(text), style)


class Screen(Console):
    """A console for strangers' names: strings, also those in tables, are no markup, and `shown`."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    @property
    def encoding(self) -> str:
        """That of the stream: lines of tables are of signs that it can show."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich's text (see rich), as `shown`."""
        return super().render_str(shown(text), **options)


class PlainColumn(ProgressColumn):
    """A column of a progress bar: ``text_format`` is filled in with the task, and `shown`."""

    def __init__(self, text_format: str) -> None:
        super().__init__()
        self._format = text_format

    def render(self, task: Task) -> Text:
        """Return the column of one task."""
        return plain(self._format.format(task=task))
