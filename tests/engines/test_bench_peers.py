"""What `bench/peers.py` says of figures: who is behind, and where that has a reason."""

from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import peers_verdicts

    return peers_verdicts


@pytest.mark.parametrize(
    ("theirs", "behind"),
    [
        ({"cpu": 4.0, "peak": 300.0}, []),
        ({"cpu": 1.9, "peak": 300.0}, ["time"]),
        ({"cpu": 4.0, "peak": 90.0}, ["memory"]),
        ({"cpu": 4.0, "peak": 300.0, "loop": 0.9}, ["time"]),  # iterations count, where there are
        ({"cpu": 1.0, "peak": 300.0, "loop": 1.1}, []),
        ({"cpu": 4.0, "peak": 300.0, "accuracy": 0.99}, ["accuracy"]),
        ({"cpu": 4.0, "peak": 300.0, "accuracy": 0.981}, []),
        ({"cpu": 4.0, "peak": 300.0, "weights": 11}, ["weights"]),
    ],
)
def test_whoever_is_ahead_of_ours_is_told_unless_there_is_a_reason(
    verdicts: ModuleType, theirs: dict[str, float], behind: list[str]
) -> None:
    ours = verdicts.Figures(cpu=2.0, wall=9.0, peak=100.0, loop=1.0, accuracy=0.983, weights=10)
    other = verdicts.Figures(wall=1.0, **theirs)
    lines, is_ahead = verdicts.judge("task", {"ours": ours, "other": other}, {})
    assert is_ahead is (not behind)
    assert [
        name for name in ("time", "memory", "accuracy", "weights") if name in lines[1]
    ] == behind
    reasons = {("task", "other", name): "it is so" for name in behind}
    lines, is_ahead = verdicts.judge("task", {"ours": ours, "other": other}, reasons)
    assert is_ahead
    assert lines[1].count("it is so") == len(behind)


def test_medians_are_taken_figure_by_figure(verdicts: ModuleType) -> None:
    runs = [
        verdicts.Figures(cpu=cpu, wall=wall, peak=1.0, weights=7)
        for cpu, wall in ((1.0, 9.0), (2.0, 8.0), (3.0, 1.0))
    ]
    found = verdicts.Figures.median(runs)
    assert (found.cpu, found.wall, found.weights, found.loop) == (2.0, 8.0, 7, None)
    assert len(verdicts.table({"ours": found, "other": found})) == 3
