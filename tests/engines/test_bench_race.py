"""The race of `bench/engines.py`, with racers that die."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import engines

    return engines


def test_a_racer_that_dies_is_named_and_the_others_end(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nexit 3\n")
    dying.chmod(0o755)
    waiting = tmp_path / "waiting.py"
    waiting.write_text("import sys\nsys.stdin.read()\n")
    started = []

    class Watched(bench.Racer):
        def __init__(self, *told: object) -> None:
            super().__init__(*told)
            started.append(self._process)

    monkeypatch.setattr(bench, "Racer", Watched)
    monkeypatch.setattr(bench, "RACER", waiting)
    monkeypatch.setattr(bench, "write_case", lambda *_: None)
    monkeypatch.setattr(bench, "find_caffe_python", lambda: SimpleNamespace(executable=dying))
    with pytest.raises(SystemExit, match="caffe ended with the return code 3"):
        bench.race(bench.CASES[0], tmp_path, tmp_path, turns=1)
    assert len(started) == 3
    assert all(process.poll() is not None for process in started)
