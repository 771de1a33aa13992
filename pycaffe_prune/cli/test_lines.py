"""Lines that say what a test found."""

from collections.abc import Iterator, Mapping

from pycaffe_prune.engines.base import TestMeans, TestScore

__all__ = ["output_lines"]


def output_lines(test: TestScore | TestMeans, weights: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for each output of a test, as `Solver::Test` of `src/caffe/solver.cpp` prints.

    Args:
        test: The test.
        weights: Of the outputs that add to the loss of its net.
    """
    of = f" of {test.test_net_name}" if test.test_net_name else ""
    for name, values in test.outputs.items():
        told = " ".join("not finite" if one is None else f"{one:.6g}" for one in values)
        yield f"output {name}{of}: {told}{_part(values, weights.get(name))}"


def _part(values: tuple[float | None, ...], weight: float | None) -> str:
    """What an output adds to the loss."""
    if weight is None:
        return ""
    total = sum(one for one in values if one is not None)
    is_finite = None not in values
    return f" (* {weight:g} = {weight * total:.6g} loss)" if is_finite else f" (* {weight:g})"
