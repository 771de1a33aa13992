"""The small net of the experiments' tests."""

from pathlib import Path

import pytest

from tests.experiments.conftest import NET, SOLVER


@pytest.fixture
def small_net(tmp_path: Path) -> Path:
    """A folder with a net of three InnerProduct layers and its solver."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    return folder
