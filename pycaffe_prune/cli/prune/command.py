"""``caffe-prune prune``: connections, units or dead units of a model, files to files."""

import click

from pycaffe_prune.cli.prune.connections import connections
from pycaffe_prune.cli.prune.dead import dead
from pycaffe_prune.cli.prune.units import units


@click.group()
def prune() -> None:
    """Prune connections (zeros and a mask), units (a smaller net), or what is dead already."""


prune.add_command(connections)
prune.add_command(units)
prune.add_command(dead)
