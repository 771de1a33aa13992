"""The small net of the experiments' tests, and an experiment of some methods with it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pycaffe_prune.cli import cli
from tests.experiments.conftest import NET, SOLVER

EXPERIMENT = """
name = "small"
preset = "one"
title = "Small"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = %d
"""


def run_methods(
    place: Path,
    digits: Path,
    methods: str,
    *,
    iterations: int = 30,
    engine: str = "torch",
    solver: str = SOLVER,
) -> str:
    """Run an experiment of methods in ``place / "run"``; return what it printed."""
    (place / "net.prototxt").write_text(NET)
    (place / "solver.prototxt").write_text(solver)
    (place / "small.toml").write_text(EXPERIMENT % iterations + methods)
    asked = ["reproduce", str(place / "small.toml"), "--engine", engine, "--jobs", "1"]
    places = ["--out", str(place / "run"), "--data", str(digits)]
    done = CliRunner().invoke(cli, [*asked, *places], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def stage(run: Path, label: str) -> Path:
    """The folder of a run's stage."""
    (place,) = (run / "stages").glob(f"{label}-*")
    return place


@pytest.fixture
def small_net(tmp_path: Path) -> Path:
    """A folder with a net of three InnerProduct layers and its solver."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    return folder
