"""The blocks of code on a page, and the marks that say what a test does with them.

A mark is an HTML comment before the block, which no reader of the site sees:

    <!-- not run: REASON -->                  the block is not run
    <!-- run by tests/…: REASON -->           another test runs it
    <!-- run with COMMAND OPTIONS: REASON --> caffe-prune COMMAND gets OPTIONS besides, to be quick
    <!-- numbers vary: REASON -->             of the output all but the numbers is compared
    <!-- file NAME -->                        the block is the content of that file
    <!-- first                                commands that are run before the block
    $ COMMAND
    -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"(?P<marks>(?:^<!--(?:(?!-->).)*-->\n)*)^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- (.*?)\s*-->", re.DOTALL)
_KINDS = {
    "not_run": re.compile(r"not run: (?P<reason>.+)", re.DOTALL),
    "run_by": re.compile(r"run by (?P<what>tests/\S+): (?P<reason>.+)", re.DOTALL),
    "run_with": re.compile(r"run with (?P<what>[a-z].*?): (?P<reason>.+)", re.DOTALL),
    "vary": re.compile(r"numbers vary: (?P<reason>.+)", re.DOTALL),
    "file": re.compile(r"file (?P<what>\S+)"),
    "first": re.compile(r"first\n(?P<what>.+)", re.DOTALL),
}


@dataclass(frozen=True)
class Mark:
    """What a comment before a block says."""

    kind: str
    what: str
    reason: str


@dataclass(frozen=True)
class Command:
    """A command as a page shows it, and the output that it shows."""

    text: str
    shown: str


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    place: str
    language: str
    text: str
    marks: tuple[Mark, ...]
    follows: str
    """The language of the block before, where nothing but blank lines is between the two."""

    def marked(self, kind: str) -> Mark | None:
        """Return the mark of that kind."""
        return next((mark for mark in self.marks if mark.kind == kind), None)

    @property
    def is_run(self) -> bool:
        """Whether the test of the page runs it."""
        elsewhere = self.marked("not_run") or self.marked("run_by")
        return self.language in ("console", "python") and elsewhere is None


def read_marks(text: str, place: str) -> Iterator[Mark]:
    for comment in _MARK.findall(text):
        found = {kind: form.fullmatch(comment) for kind, form in _KINDS.items()}
        kind = next((kind for kind, match in found.items() if match), None)
        assert kind is not None, f"{place}: '{comment}' is no mark, or lacks its reason"
        parts = found[kind].groupdict()
        yield Mark(kind, parts.get("what", ""), parts.get("reason", ""))


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    text = page.read_text("utf-8")
    blocks: list[Block] = []
    end, language = 0, ""
    for match in _BLOCK.finditer(text):
        place = f"{page.relative_to(ROOT)}:{text[: match.start('language')].count(chr(10)) + 1}"
        follows = language if not text[end : match.start()].strip() else ""
        marks = tuple(read_marks(match["marks"], place))
        blocks.append(Block(place, match["language"], match["text"], marks, follows))
        end, language = match.end(), match["language"]
    return blocks


def commands_of(text: str) -> list[Command]:
    """Return the commands behind the prompts of a console block, each with what it shows."""
    commands: list[list[str]] = []
    goes_on = False
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            commands.append([line.removeprefix("$ "), ""])
        else:
            commands[-1][0 if goes_on else 1] += line
        goes_on = (goes_on or line.startswith("$ ")) and line.endswith("\\\n")
    return [Command(*command) for command in commands]
