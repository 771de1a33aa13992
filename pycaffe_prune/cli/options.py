"""Options that several commands share, and the engine that they lead to."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pycaffe_prune.cli.progress import console
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.choice import EngineWish, choose_engine
from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.net.state_wish import StateWish

__all__ = [
    "accuracy_option",
    "caffe_python_option",
    "device_option",
    "engine_option",
    "engine_to_work_with",
    "path_type",
    "phase_option",
    "require_sense",
    "say_remark",
    "state_options",
    "text_path_type",
    "tf32_option",
    "threads_option",
    "trust_option",
    "verify_option",
]

_F = TypeVar("_F", bound=Callable[..., object])

path_type = click.Path(path_type=Path)
"""A path; whether it exists is checked where it is read, with a better sentence."""


class _TextPath(click.Path):
    """Engines get their files named in Caffe's messages and in JSON, whose strings are UTF-8."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path.

        Raises:
            FormatError: It is not UTF-8.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx))).absolute()
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise FormatError(
                f"{path}: the name is not UTF-8, as engines need it; rename it, or choose another"
            ) from error
        return Path(value)


text_path_type = _TextPath(path_type=Path)
"""As `path_type`, for what an engine is told of."""


def accuracy_option(function: _F) -> _F:
    """Add ``--accuracy``."""
    return click.option(
        "--accuracy",
        metavar="NAME",
        help="Accuracy (or loss) layer to judge by (default: that of the greatest loss weight).",
    )(function)


def caffe_python_option(function: _F) -> _F:
    """Add ``--caffe-python``."""
    return click.option(
        "--caffe-python",
        type=path_type,
        help="A Python that can import caffe (default: $CAFFE_PYTHON, else the private prefix).",
    )(function)


def engine_option(function: _F) -> _F:
    """Add ``--engine``."""
    return click.option(
        "--engine",
        type=click.Choice(["auto", "caffe", "torch"]),
        default="auto",
        show_default=True,
        help="auto: the real Caffe if it is here, else torch.",
    )(function)


def verify_option(function: _F) -> _F:
    """Add ``--verify``, whose value is a `ChecksumOf`."""

    def chosen(_ctx: click.Context, _param: click.Parameter, verify: bool) -> ChecksumOf:
        return sha256_of if verify else noted_sha256

    return click.option(
        "--verify",
        "checksum_of",
        is_flag=True,
        callback=chosen,
        help="Read what is done and compare checksums, also where size and time are the same.",
    )(function)


def device_option(function: _F) -> _F:
    """Add ``--device``, whose value is ``cpu``, ``cuda`` or ``cuda:N``."""
    return click.option(
        "--device",
        default="cpu",
        show_default=True,
        callback=_device,
        help="cpu, or cuda[:N].",
    )(function)


def threads_option(function: _F) -> _F:
    """Add ``--threads``."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Threads of one run; with one, a run on the CPU repeats bit for bit.",
    )(function)


def state_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--stage`` and ``--level``: the parameter ``state``, a `StateWish`.

    Below `phase_option`, if a command has both: its phase is then the state's.
    """

    @wraps(function)
    def bundled(
        *arguments: object,
        level: int | None,
        stages: tuple[str, ...],
        phase: str = "test",
        **options: object,
    ) -> None:
        state = StateWish(TRAIN if phase == "train" else TEST, level, stages)
        function(*arguments, state=state, **options)

    stage = click.option(
        "--stage",
        "stages",
        multiple=True,
        metavar="NAME",
        help="Use nets in this stage, beside those of their own state; repeatable.",
    )
    level = click.option(
        "--level", type=int, help="Use nets at this level.  [default: that of their own state]"
    )
    return stage(level(bundled))


def phase_option(function: _F) -> _F:
    """Add ``--phase``, ``train`` or ``test``, to a command that has `state_options`."""
    return click.option(
        "--phase",
        type=click.Choice(["train", "test"]),
        default="test",
        show_default=True,
        help="Which layers of a prototxt count.",
    )(function)


def tf32_option(function: _F) -> _F:
    """Add ``--tf32``."""
    return click.option(
        "--tf32",
        is_flag=True,
        help="Engine torch on a GPU: round factors to TF32; faster, no longer Caffe's answers.",
    )(function)


def trust_option(function: _F) -> _F:
    """Add ``--trust``."""
    return click.option(
        "--trust",
        is_flag=True,
        help="Net and solver are your own: they may run Python, write, and read any file.",
    )(function)


def _device(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise click.BadParameter(f"'{text}' is neither cpu nor cuda nor cuda:N")
    return text


def require_sense(wish: EngineWish) -> None:
    """Refuse what the wished engine cannot be told.

    Raises:
        click.UsageError: The command line is at fault.
    """
    if wish.name == "caffe" and wish.tf32:
        raise click.UsageError("--tf32 is for the engine torch; the real Caffe has no such setting")
    if wish.name == "caffe" and wish.pack > 1:
        raise click.UsageError("--pack is for the engine torch; the real Caffe runs one at a time")
    if wish.name == "caffe" and wish.teacher:
        raise click.UsageError(
            "--teacher-net is for the engine torch; Caffe has no layer for a teacher's loss"
        )
    if wish.tf32 and wish.device == "cpu":
        raise click.UsageError("--tf32 goes with --device cuda: a CPU has no TF32")
    if wish.name == "torch" and wish.caffe_python is not None:
        raise click.UsageError("--caffe-python goes with --engine caffe or auto")


@contextmanager
def engine_to_work_with(wish: EngineWish) -> Iterator[Engine]:
    """Give the engine that does what is wished, and end its processes after the work.

    Which engine ``auto`` has taken, and why, is said on standard error.

    Raises:
        click.UsageError: As `require_sense`.
        EngineError: It cannot be had.
    """
    require_sense(wish)
    choice = choose_engine(wish)
    if wish.name == "auto":
        say_remark(f"engine {choice.engine.name}: {choice.reason}")
    try:
        yield choice.engine
    finally:
        choice.engine.close()


def say_remark(sentence: str) -> None:
    """Say on standard error what a user should know."""
    console.print(sentence, style="yellow", soft_wrap=True)
