"""What a run shows."""

from pycaffe_prune.cli.progress import training_progress
from pycaffe_prune.engines.base import Event


def test_a_run_shows_each_warning(capsys):
    with training_progress("a run", 10) as observe:
        observe(Event(event="warning", message="masks are applied on the host"))
    assert "warning: masks are applied on the host" in capsys.readouterr().err
