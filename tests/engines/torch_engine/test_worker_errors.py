"""After an error on a GPU a worker is of no more use; after one of a run's own it goes on."""

import pytest

from pycaffe_prune.engines.torch_engine import worker
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
