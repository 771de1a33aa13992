"""``caffe-prune doctor``: what is usable on this machine, and how to get what is not."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from pycaffe_prune.cli.doctor.look import make_report
from pycaffe_prune.cli.doctor.report import DoctorReport
from pycaffe_prune.cli.doctor.table import rows, size
from pycaffe_prune.engines.caffe.prefix import (
    default_prefix,
    install_caffe,
    plan_install,
)
from pycaffe_prune.engines.caffe.private_apt import OnProgress
from pycaffe_prune.engines.caffe.python import CAFFE_PYTHON_VARIABLE
from pycaffe_prune.screen import PlainColumn, Screen, echo, plain

__all__ = ["doctor"]


@click.command()
@click.option("--install-caffe", is_flag=True, help="Install the private Caffe first, if need be.")
@click.option(
    "--prefix",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --install-caffe: the folder for it.  [default: caffe-bullseye in the cache folder]",
)
@click.option(
    "--mirror",
    metavar="URL",
    help="With --install-caffe: the Debian mirror.  [default: $PYCAFFE_PRUNE_DEBIAN_MIRROR, else "
    "the one that this machine's apt uses]",
)
@click.option("--dry-run", is_flag=True, help="With --install-caffe: only say what it would do.")
@click.option(
    "--caffe-python",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Look at this Python's Caffe.  [default: $CAFFE_PYTHON, the private one, conda's, "
    "python3]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def doctor(
    ctx: click.Context,
    install_caffe: bool,
    prefix: Path | None,
    mirror: str | None,
    dry_run: bool,
    caffe_python: Path | None,
    as_json: bool,
) -> None:
    """Say what is usable here, and how to get what is missing.

    Exits with 0 when there is an engine to train with, caffe or torch, else with 1.

    --install-caffe unpacks Debian 11's Caffe into a folder of your own: 164 MB to download, 580 MB
    on disk, about half a minute, no root. It needs x86-64 Debian or Ubuntu; elsewhere
    use a container or conda's environment.yml (docs/real-caffe.md).

    A GPU is named with its driver and the CUDA that this can run, beside the CUDA that Caffe and
    PyTorch were built for; in a container too.

    \b
    Examples:
      caffe-prune doctor
      caffe-prune doctor --install-caffe --dry-run
      caffe-prune doctor --install-caffe
      caffe-prune doctor --caffe-python ~/caffe/bin/python --json
    """
    if not install_caffe and (prefix or mirror or dry_run):
        raise click.UsageError("--prefix, --mirror and --dry-run go with --install-caffe")
    if dry_run:
        _show_plan(prefix or default_prefix(), mirror, as_json)
        return
    if install_caffe:
        launcher = _install(prefix or default_prefix(), mirror)
        if prefix is not None and caffe_python is None:
            caffe_python = launcher
    report = make_report(caffe_python)
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=2))
    else:
        _show(report)
    ctx.exit(0 if report.usable_engines else 1)


def _install(prefix: Path, mirror: str | None) -> Path:
    with _progress() as on_progress:
        launcher = install_caffe(prefix, mirror=mirror, on_progress=on_progress)
    if prefix != default_prefix() or CAFFE_PYTHON_VARIABLE in os.environ:
        echo(f"To use it: export {CAFFE_PYTHON_VARIABLE}={shlex.quote(str(launcher))}", err=True)
    return launcher


def _show_plan(prefix: Path, mirror: str | None, as_json: bool) -> None:
    with _progress() as on_progress:
        plan = plan_install(prefix, mirror=mirror, on_progress=on_progress)
    if as_json:
        click.echo(json.dumps(plan.model_dump(mode="json"), indent=2))
        return
    if plan.already_installed:
        echo(f"{prefix}: the private Caffe is there already; nothing would be done.")
        return
    echo(
        f"From {plan.mirror} ({plan.release}): {plan.packages} packages, of which "
        f"{plan.packages_to_download} ({size(plan.bytes_to_download)}) are still to be "
        f"downloaded; they would be unpacked into {prefix}."
    )


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Give a function that draws each step as a bar on stderr."""
    with Progress(
        PlainColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Screen(stderr=True),
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(step: str, fraction: float | None) -> None:
            if step not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, total=1, completed=1)
                tasks[step] = bars.add_task(step, total=None)
            bars.update(tasks[step], total=None if fraction is None else 1, completed=fraction or 0)

        yield on_progress
        for task in tasks.values():
            bars.update(task, total=1, completed=1)


def _show(report: DoctorReport) -> None:
    console = Screen()
    table = Table(title="caffe-prune doctor", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, found in rows(report):
        table.add_row(what, found)
    console.print(table)
    for missing in report.missing:
        console.print(
            Text.assemble(("missing", "yellow"), plain(f": {missing.what}")), soft_wrap=True
        )
        console.print(f"  {missing.remedy}", soft_wrap=True)
    if report.usable_engines:
        console.print(Text.assemble(("usable", "green"), f": {', '.join(report.usable_engines)}"))
    else:
        console.print(
            Text.assemble(
                ("no engine is usable", "red"),
                ": models can be inspected and pruned, not trained",
            )
        )
