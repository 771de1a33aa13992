"""``train --teacher-net`` and its like, up to the run itself."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pycaffe_prune.cli.train import train

BOTH = ["--teacher-net", "t.prototxt", "--teacher-weights", "t.caffemodel"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (BOTH[:2], "--teacher-net and --teacher-weights go together"),
        (BOTH[2:], "--teacher-net and --teacher-weights go together"),
        (["--mix", "0.5"], "--temperature and --mix are for a --teacher-net"),
        ([*BOTH, "--temperature", "0"], "0 is not in the range x>0"),
        ([*BOTH, "--mix", "1.5"], "1.5 is not in the range 0<=x<=1"),
        ([*BOTH, "--engine", "caffe"], "--teacher-net is for the engine torch"),
    ],
)
def test_what_cannot_be_followed_is_a_fault_of_the_command_line(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text("max_iter: 1\n")
    asked = ["--solver", str(solver), "--out", str(tmp_path / "run"), *options]
    done = CliRunner().invoke(train, asked)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()
