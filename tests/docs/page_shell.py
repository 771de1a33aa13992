"""A page's blocks run in order, in one folder, by one shell.

The shell is bash, so that variables, loops, continuations and redirections are what they are for a
reader. Its ``caffe-prune`` is a function that has this process do the command, which spares the
start of a Python for each.
"""

import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

from pycaffe_prune.cli import cli
from pycaffe_prune.cli.endings import exit_code
from tests.docs.page_blocks import ROOT, Block, Command, commands_of

_END = "\x1e"  # after each command's output, before its exit code

_FUNCTIONS = """
declare -A MORE
trap 'echo end >"$ROOM/requests"' EXIT
asked() {
    echo "$1" >"$ROOM/requests"
    read -r code <"$ROOM/answers"
    cat "$ROOM/output"
    return "$code"
}
caffe-prune() {
    if [ "$1" = python ]; then command caffe-prune "$@"; return; fi
    printf '%s\\0' "$PWD" "$@" ${MORE[$1]} >"$ROOM/arguments"
    asked command
}
ended() {
    code=$?
    printf '\\036%s\\n' "$code"
    return "$code"
}
"""


@dataclass(frozen=True)
class Step:
    """A command of a block, and the shell's lines for it."""

    block: Block
    command: Command
    lines: str


@dataclass(frozen=True)
class Run:
    """A command that was run."""

    block: Block
    command: Command
    output: str
    code: int


class PageShell:
    """Runs a page's blocks in ``folder``; ``room`` is for what the page must not see."""

    def __init__(self, folder: Path, room: Path) -> None:
        self._folder = folder
        self._room = room
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._blocks: Sequence[Block] = ()

    def run(self, blocks: Sequence[Block]) -> list[Run]:
        """Run all blocks that are to be run, and write the files that blocks are."""
        self._blocks = blocks
        steps = list(self._steps())
        script = self._room / "script"
        script.write_text(_FUNCTIONS + "".join(step.lines for step in steps), "utf-8")
        for name in ("requests", "answers"):
            os.mkfifo(self._room / name)
        ends = self._serve(script)
        assert len(ends) == len(steps), f"the shell ended at {steps[len(ends)].command.text}"
        return [Run(step.block, step.command, *end) for step, end in zip(steps, ends, strict=True)]

    def _steps(self) -> Iterator[Step]:
        printed = dict(self._printed())
        for number, block in enumerate(self._blocks):
            if (file := block.marked("file")) is not None:
                (self._folder / file.what).write_text(block.text, "utf-8")
            if (first := block.marked("first")) is not None:
                for command in commands_of(first.what):
                    yield Step(block, command, f"MORE=()\n{command.text}\nended\n")
            if not block.is_run:
                continue
            if block.language == "python" and file is None:
                command = Command(f"the block at {block.place}\n", printed.get(number, ""))
                yield Step(block, command, self._python(number, block))
            elif block.language == "console":
                before = _more(block)
                for command in commands_of(block.text):
                    yield Step(block, command, f"{before}{command.text}\nended\n")
                    before = ""

    def _printed(self) -> Iterator[tuple[int, str]]:
        """Yield the blocks of Python behind which a page shows what they print."""
        for number, block in enumerate(self._blocks):
            if block.language == "text" and block.follows == "python":
                yield number - 1, block.text

    def _python(self, number: int, block: Block) -> str:
        if not re.search(r"^import caffe$", block.text, re.MULTILINE):
            return f"asked {number}\nended\n"
        script = self._room / f"{number}.py"
        script.write_text(block.text, "utf-8")
        return f"command caffe-prune python {shlex.quote(str(script))}\nended\n"

    def _serve(self, script: Path) -> list[tuple[str, int]]:
        """Run the script and do what it asks for; return each command's output and exit code."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "ROOM": str(self._room), "PATH": path, "REPOSITORY": str(ROOT)}
        told = self._room / "told"
        with (
            self._both_ways("requests") as requests,
            self._both_ways("answers") as answers,
            told.open("wb") as stream,
            subprocess.Popen(
                ["bash", script],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            ),
        ):
            while (request := requests.readline().decode().strip()) != "end":
                answers.write(b"%d\n" % self._answer(request))
        text = told.read_text("utf-8", errors="replace")
        return [
            (output, int(code))
            for output, code in re.findall(rf"(.*?){_END}(\d+)\n", text, re.DOTALL)
        ]

    def _both_ways(self, name: str) -> BinaryIO:
        """Open a pipe for both, so that it neither waits for the other end nor ends with it."""
        return os.fdopen(os.open(self._room / name, os.O_RDWR), "r+b", buffering=0)

    def _answer(self, request: str) -> int:
        with (
            (self._room / "output").open("w", encoding="utf-8") as stream,
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):
            if request != "command":
                return self._execute(self._blocks[int(request)])
            told = (self._room / "arguments").read_bytes().decode().split("\0")
            folder, *arguments = told[:-1]
            with chdir(folder), patch.object(sys, "argv", ["caffe-prune", *arguments]):
                return exit_code(
                    lambda: cli(args=arguments, prog_name="caffe-prune", standalone_mode=False)
                )

    def _execute(self, block: Block) -> int:
        try:
            with chdir(self._folder):
                exec(compile(block.text, block.place, "exec"), self._names)  # noqa: S102
        except Exception:  # noqa: BLE001  (it is what the page's test shows)
            traceback.print_exc()
            return 1
        return 0


def _more(block: Block) -> str:
    """Return the shell's line that says which commands get options besides."""
    told = [mark.what.split(" ", 1) for mark in block.marks if mark.kind == "run_with"]
    pairs = " ".join(f"[{command}]={shlex.quote(options)}" for command, options in told)
    return f"MORE=({pairs})\n"


_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_RULES = re.compile(r"[\u2500-\u257f]+")
_LEFT_OUT = re.compile(r"…|(?:(?<=\s)|^)\.\.\.(?=\s|$)")


def words_of(text: str, *, varies: bool) -> str:
    """Return a text without tables' rules, line ends and, where these vary, numbers."""
    text = _RULES.sub(" ", text)
    if varies:
        text = _NUMBER.sub("#", text)
    return " ".join(text.split())


def is_as_shown(run: Run) -> bool:
    """Whether a command's output is what the page shows of it; … stands for anything.

    What a command with other options than on the page prints is compared where numbers may vary.
    """
    varies = run.block.marked("vary") is not None
    shortened = any(
        f"caffe-prune {mark.what.split()[0]} " in run.command.text
        for mark in run.block.marks
        if mark.kind == "run_with"
    )
    if not run.command.shown.strip() or (shortened and not varies):
        return True
    parts = [words_of(part, varies=varies) for part in _LEFT_OUT.split(run.command.shown)]
    form = ".*".join(re.escape(part) for part in parts)
    return re.fullmatch(rf"\s*{form}\s*", words_of(run.output, varies=varies)) is not None


def is_to_fail(command: Command) -> bool:
    """Whether a page shows that a command ends with an error."""
    return any(line.startswith("caffe-prune: ") for line in command.shown.splitlines())
