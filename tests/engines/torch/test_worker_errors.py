"""After an error on a GPU a worker is of no more use; after one of a run's own it goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from pycaffe_prune.engines.torch import worker
from pycaffe_prune.engines.torch.request import Request
from pycaffe_prune.errors import DataError


@pytest.mark.parametrize(
    ("error", "broken"),
    [(DataError("the data are gone"), False), (RuntimeError("CUDA error:\n assert"), True)],
)
def test_only_errors_of_pytorch_make_a_worker_the_last(
    monkeypatch: pytest.MonkeyPatch, error: Exception, broken: bool
) -> None:
    monkeypatch.setattr(worker, "_broken", [])
    said: list[dict[str, object]] = []
    with worker._telling_failure(lambda **event: said.append(event)):
        raise error
    assert said == [{"event": "failed", "message": " ".join(str(error).split())}]
    assert bool(worker._broken) == broken


_FAILS = """
from pycaffe_prune.engines.torch import worker
def fail(*_):
    raise RuntimeError("CUDA error: an assert\\nCompile with `TORCH_USE_CUDA_DSA`")
worker._TASKS["evaluate"] = fail
worker.main()
"""


def test_an_error_of_pytorch_in_an_evaluation_is_told_whole(tmp_path: Path) -> None:
    request = Request(
        task="evaluate", folders=(str(tmp_path),), device="cpu", threads=1, tf32=False
    )
    command = [sys.executable, "-c", _FAILS]
    ended = subprocess.run(command, input=request.model_dump_json() + "\n", text=True, check=False)
    assert ended.returncode == 1
    last = (tmp_path / "engine.log").read_text().splitlines()[-1]
    assert last == "CUDA error: an assert Compile with `TORCH_USE_CUDA_DSA`"
