"""``caffe-prune python``: Python in which ``import caffe`` is pycaffe on the engine torch."""

import os
import sys
from pathlib import Path

import click

import pycaffe_prune.caffe_name
from pycaffe_prune.caffe_name.shim import install_shim, shim_path, uninstall_shim
from pycaffe_prune.cli.options import caffe_python_option
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.errors import EngineError
from pycaffe_prune.screen import echo

__all__ = ["python"]

STARTUP = Path(pycaffe_prune.caffe_name.__file__).parent / "startup"


@click.command(
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [-m MODULE | -c CODE | SCRIPT | -]",
)
@click.option("-m", "as_module", is_flag=True, help="Run a module of the path, as `python -m`.")
@click.option("-c", "as_code", is_flag=True, help="Run code, as `python -c`.")
@click.option(
    "--engine",
    type=click.Choice(["torch", "caffe"]),
    default="torch",
    show_default=True,
    help="Whose `import caffe`: caffe is the real one, under its own Python.",
)
@caffe_python_option
@click.option(
    "--install",
    is_flag=True,
    help="Give this environment a module named caffe, for `python SCRIPT`; never over a real one.",
)
@click.option("--uninstall", is_flag=True, help="Take it back.")
@click.option("--dry-run", is_flag=True, help="Only say what --install or --uninstall would do.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
def python(
    as_module: bool,
    as_code: bool,
    engine: str,
    caffe_python: Path | None,
    install: bool,
    uninstall: bool,
    dry_run: bool,
    arguments: tuple[str, ...],
) -> None:
    """Run a pycaffe script as it is: `import caffe` gives pycaffe on the engine torch.

    Everything else is as `python` does it: arguments, tracebacks, exit codes; without anything to
    run, a prompt. Processes that the script starts have the same caffe, Jupyter's kernels as well.

    \b
    Examples:
      caffe-prune python classify.py cat.jpg
      caffe-prune python -c 'import caffe; print(caffe.layer_type_list())'
      caffe-prune python -m jupyter lab
      caffe-prune python --engine caffe classify.py cat.jpg    # the real Caffe's answer
      caffe-prune python --install    # from now on `python classify.py` does as well
    """
    if install or uninstall or dry_run:
        if engine == "caffe" or caffe_python or as_module or as_code or arguments:
            raise click.UsageError("--install and --uninstall go with nothing but --dry-run")
        if install == uninstall:
            raise click.UsageError("say either --install or --uninstall")
        _change_environment(install=install, dry_run=dry_run)
        return
    if as_module and as_code:
        raise click.UsageError("say either -m or -c")
    if (as_module or as_code) and not arguments:
        raise click.UsageError(f"{'-m' if as_module else '-c'} needs something to run")
    if caffe_python and engine != "caffe":
        raise click.UsageError("--caffe-python goes with --engine caffe")
    flag = ["-m"] if as_module else ["-c"] if as_code else []
    program, environment = _interpreter(engine, caffe_python)
    try:
        os.execve(program, [program, *flag, *arguments], environment)  # noqa: S606 (a user's script)
    except OSError as error:
        raise EngineError(f"{program}: cannot be run: {error.strerror}") from error


def _interpreter(engine: str, caffe_python: Path | None) -> tuple[str, dict[str, str]]:
    """The Python that runs the script, and its environment."""
    environment = dict(os.environ)
    told = environment.pop("PYTHONPATH", "")
    folders = [folder for folder in told.split(os.pathsep) if folder != str(STARTUP)]
    if engine == "torch":
        folders.insert(0, str(STARTUP))
    if any(folders):
        environment["PYTHONPATH"] = os.pathsep.join(folders if told else folders[:1])
    if engine == "torch":
        return sys.executable, environment
    return str(find_caffe_python(caffe_python).executable), environment


def _change_environment(*, install: bool, dry_run: bool) -> None:
    path = shim_path()
    if install:
        changed = install_shim(path, dry_run=dry_run)
        done, would, already = "written", "would be written", "is there already"
    else:
        changed = uninstall_shim(path, dry_run=dry_run)
        done, would, already = "removed", "would be removed", "is not there"
    state = already if not changed else would if dry_run else done
    echo(f"{path}: {state}")
