import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

CaffeRunner = Callable[..., None]


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: for tests that write thousands of files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def run_caffe(caffe_python: Path) -> CaffeRunner:
    """Run a task of with_caffe.py in the real Caffe, in the folder ``cwd``."""

    def run(*arguments: str | Path, cwd: Path) -> None:
        command: Sequence[str | Path] = [
            caffe_python,
            Path(__file__).with_name("with_caffe.py"),
            *arguments,
        ]
        environment = {**os.environ, "GLOG_minloglevel": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return run
