"""The command ``caffe-prune``: one thin module per command, imported only when it is called."""

import gc
import sys
from importlib import import_module
from types import ModuleType

import click

from pycaffe_prune import __version__
from pycaffe_prune.cli.endings import exit_code
from pycaffe_prune.collector import without_collector

__all__ = ["main"]

# name: (module and attribute, the line that --help shows)
_COMMANDS = {
    "compress": ("compress.command:compress", "Store a model in fewer bytes."),
    "convert": (
        "convert.command:convert",
        "Convert models between formats, and nets for a new task.",
    ),
    "data": ("data:data", "Build the LMDBs of a data set."),
    "doctor": ("doctor.command:doctor", "Say what is usable here, and install the real Caffe."),
    "features": ("features:features", "Run a data set through a trained net and keep a blob."),
    "inspect": (
        "inspect.command:inspect",
        "Show layers, shapes, parameters and MACs of nets and weights.",
    ),
    "prune": ("prune.command:prune", "Prune connections or units of a model."),
    "python": ("python:python", "Run a pycaffe script on today's Python: `import caffe` is ours."),
    "quantize": ("quantize:quantize", "Put the weights of a model on few levels."),
    "report": ("report:report", "Make tables, figures and an HTML page from a finished run."),
    "reproduce": ("reproduce.command:reproduce", "Run a whole experiment of the paper."),
    "sensitivity": ("sensitivity:sensitivity", "Measure accuracy against pruning rate by layer."),
    "share": ("share:share", "Let the weights of a model share few values."),
    "train": ("train:train", "Run one solver, resumable, with or without a mask."),
    "verify": (
        "verify.command:verify",
        "Tell whether two models, or two engines, compute the same.",
    ),
}


def _import(module: str) -> ModuleType:
    """Import a module, and let the collector of cycles pass over what is there then.

    Modules stay, and walking through them again and again takes a tenth of a short command's time.
    Only the first import of one does so: what is passed over is never freed as part of a cycle.
    """
    if module not in sys.modules:
        with without_collector():
            import_module(module)
            gc.freeze()
    return sys.modules[module]


class _LazyGroup(click.Group):
    """Imports a command's module only when that command is called: ``--help`` stays instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command = getattr(_import(f"pycaffe_prune.cli.{module}"), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  (tells mypy what the table holds)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's signature)
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(_COMMANDS.items())])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 an input or a run is at fault (one sentence says why), "
    "2 the command line is, 70 caffe-prune itself is (a file to report is named), 130 interrupted "
    "(the same command goes on from there).",
)
@click.version_option(__version__, prog_name="caffe-prune")
def cli() -> None:
    """Prune Caffe models and measure what it costs, with the real Caffe or with PyTorch.

    \b
    First light, from nothing to the figure:
      caffe-prune doctor --install-caffe
      caffe-prune data mnist --out data/mnist
      caffe-prune reproduce lenet-300-100 --preset quick
    """


def main() -> None:
    """Run the command line; whatever goes wrong is one sentence on stderr and an exit code."""
    sys.exit(exit_code(lambda: cli(prog_name="caffe-prune", standalone_mode=False)))
