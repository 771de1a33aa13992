"""``caffe-prune prune``: connections or units of a model, files to files."""

import click

from pycaffe_prune.cli.prune_connections import connections
from pycaffe_prune.cli.prune_units import units


@click.group()
def prune() -> None:
    """Prune connections (zeros and a mask) or units (a smaller net)."""


prune.add_command(connections)
prune.add_command(units)
