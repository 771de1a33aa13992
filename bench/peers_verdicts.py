"""The figures of `peers.py`, its tables, and where ours is to be ahead."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

__all__ = ["REASONS", "Figures", "judge", "table"]

SLACK = 0.002
"""By how much an accuracy may be lower than another's: 20 of 10,000 images."""
REASONS: Mapping[tuple[str, str, str], str] = {
    (task, "the real Caffe", "memory"): "PyTorch, imported and idle, takes 217 MiB itself"
    for task in (
        "LeNet-300-100, a tenth kept",
        "LeNet-5, a tenth kept",
        "LeNet-5, what is left retrained",
    )
}
"""Task, side and figure where ours is not to be ahead, and why."""


@dataclass(frozen=True)
class Figures:
    """What one process took, or the medians of some."""

    cpu: float
    """Seconds of the processor, of all that the process did."""
    wall: float
    peak: float
    """MiB."""
    loop: float | None = None
    """Seconds of the processor that the iterations alone took."""
    accuracy: float | None = None
    weights: int | None = None

    @classmethod
    def median(cls, runs: Sequence["Figures"]) -> "Figures":
        """The median of each figure over some runs."""
        values = {field.name: [getattr(run, field.name) for run in runs] for field in fields(cls)}
        return cls(
            **{
                name: None if None in found else statistics.median(found)
                for name, found in values.items()
            }
        )


def table(sides: Mapping[str, Figures]) -> list[str]:
    """Return a table, one side a line."""
    heads = ("loop, s of CPU", "  whole", "by the wall", "peak MiB", "accuracy", "    weights")
    lines = [" ".join([" " * 16, *heads])]
    for side, found in sides.items():
        loop = "" if found.loop is None else f"{found.loop:.2f}"
        accuracy = "" if found.accuracy is None else f"{100 * found.accuracy:.2f}"
        weights = "" if found.weights is None else f"{found.weights:,.0f}"
        lines.append(
            f"{side:16} {loop:>14} {found.cpu:7.2f} {found.wall:11.2f} {found.peak:8.0f} "
            f"{accuracy:>8} {weights:>11}"
        )
    return lines


def judge(
    task: str,
    sides: Mapping[str, Figures],
    reasons: Mapping[tuple[str, str, str], str] = REASONS,
) -> tuple[list[str], bool]:
    """Return a line for each of the others, and whether ours is ahead wherever it is to be.

    Args:
        task: Its name.
        sides: The figures of "ours" and of others.
        reasons: As `REASONS`.
    """
    ours = sides["ours"]
    lines, is_ahead = [f"  {task}"], True
    for side, theirs in sides.items():
        if side == "ours":
            continue
        ratios = {"time": _times(ours, theirs), "memory": theirs.peak / ours.peak}
        behind = {name for name, ratio in ratios.items() if ratio < 1}
        if ours.accuracy is not None and theirs.accuracy is not None:
            behind |= {"accuracy"} if ours.accuracy < theirs.accuracy - SLACK else set()
        if None not in (ours.weights, theirs.weights) and ours.weights != theirs.weights:
            behind.add("weights")
        told = [f"{name}: {reasons.get((task, side, name), 'BEHIND')}" for name in sorted(behind)]
        is_ahead &= all((task, side, name) in reasons for name in behind)
        line = f"    {side:16} {ratios['time']:6.2f} {ratios['memory']:6.2f}"
        lines.append("   ".join([line, *told]))
    return lines, is_ahead


def _times(ours: Figures, theirs: Figures) -> float:
    """Theirs by ours: the iterations' time, or the whole process's where there are none."""
    if ours.loop is None or theirs.loop is None:
        return theirs.cpu / ours.cpu
    return theirs.loop / ours.loop
