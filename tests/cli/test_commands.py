"""How commands are found."""

import subprocess
import sys

_LOOKED_UP_TWICE = """
import gc, click
from pycaffe_prune.cli import cli

counts, kept = [gc.get_freeze_count()], []
for _ in range(2):
    assert cli.get_command(click.Context(cli), "python") is not None
    counts.append(gc.get_freeze_count())
    kept += [[] for _ in range(1000)]
assert counts[0] < counts[1] >= counts[2], counts
assert gc.isenabled()
"""


def test_the_collector_passes_over_what_a_command_imports_and_over_nothing_else() -> None:
    subprocess.run([sys.executable, "-c", _LOOKED_UP_TWICE], check=True)
