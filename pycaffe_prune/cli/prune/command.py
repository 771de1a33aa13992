"""``caffe-prune prune``: connections, units, dead units or ranks of a model, files to files."""

import click

from pycaffe_prune.cli.prune.connections import connections
from pycaffe_prune.cli.prune.dead import dead
from pycaffe_prune.cli.prune.low_rank import low_rank
from pycaffe_prune.cli.prune.predict import predict
from pycaffe_prune.cli.prune.units import units


class _WithMethods(click.Group):
    """Names the methods that experiments run too, since people look for them here."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's signature)
        # It takes a moment to find them, which the other commands need not wait for
        from pycaffe_prune.methods.registry import methods

        with formatter.section("Methods that train, for [[methods]] of `caffe-prune reproduce`"):
            told = {kind: f"{method.title} ({method.source})" for kind, method in methods().items()}
            formatter.write_dl(sorted(told.items()))


@click.group(cls=_WithMethods)
def prune() -> None:
    """Prune connections (zeros and a mask), units (a smaller net), what is dead, or the rank."""


prune.add_command(connections)
prune.add_command(units)
prune.add_command(dead)
prune.add_command(low_rank)
prune.add_command(predict)
