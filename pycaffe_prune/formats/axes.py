"""Shapes: how they are written, and their axes counted."""

from collections.abc import Sequence

from pycaffe_prune.errors import SurgeryError

__all__ = ["Shape", "canonical_axis", "extents"]

Shape = tuple[int, ...]


def extents(shape: Sequence[int]) -> str:
    """Return a shape as people write it: ``64x1x28x28``; ``()`` for a scalar."""
    return "x".join(map(str, shape)) or "()"


def canonical_axis(shape: Shape, axis: int) -> int:
    """Return ``axis`` counted from the front (`Blob::CanonicalAxisIndex`).

    Raises:
        SurgeryError: The shape has no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise SurgeryError(f"its axis {axis} does not exist in the bottom's shape {extents(shape)}")
    return axis % len(shape)
