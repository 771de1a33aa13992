"""What a net reads from memory for an image, and what energy that takes: estimates by counts.

The table is that of 45 nm chips and 32-bit operands in Han et al. 2016 (EIE). It tells why weights
are pruned at all: a word from DRAM costs as much as 139 multiply-accumulates. No chip was measured
here, and caches, buses, activations in DRAM and idle time are left out.
"""

from dataclasses import dataclass

from pycaffe_prune.errors import SurgeryError

__all__ = ["DRAM", "FLOAT_ADD", "FLOAT_MULTIPLY", "SRAM", "Energy", "csr_bytes", "image_energy"]

DRAM = 640.0
"""Picojoules for a word of 32 bits."""
SRAM = 5.0
"""The same from 32 KB on the chip."""
FLOAT_MULTIPLY = 3.7
FLOAT_ADD = 0.9

_WORD = 4


@dataclass(frozen=True)
class Energy:
    """Picojoules for one image."""

    weights: float
    """To read the weights."""
    activations: float
    """To read the value that each of them is multiplied with."""
    arithmetic: float
    """To multiply and add."""

    @property
    def total(self) -> float:
        """Of all three."""
        return self.weights + self.activations + self.arithmetic


def image_energy(stored: float, macs: float, *, batch: int = 1, on_chip: bool = False) -> Energy:
    """Estimate the energy that one image takes.

    Args:
        stored: Bytes of the weights as they are read: values, and positions where they have some.
        macs: Multiply-accumulates for one image that are done.
        batch: Images that go through together: the weights are read once for all of them.
        on_chip: Whether the weights lie in SRAM, and need not be read from DRAM.

    Raises:
        SurgeryError: There is less than nothing, or no image.
    """
    if stored < 0 or macs < 0 or batch < 1:
        raise SurgeryError(
            f"no net reads {stored:g} bytes and multiplies {macs:g} times for {batch} images"
        )
    word = SRAM if on_chip else DRAM
    return Energy(
        weights=stored / _WORD * word / batch,
        activations=macs * SRAM,
        arithmetic=macs * (FLOAT_MULTIPLY + FLOAT_ADD),
    )


def csr_bytes(rows: int, kept: int, *, index_bytes: int = 4) -> int:
    """Return what a matrix takes in compressed rows: values, their columns, the ends of rows.

    Args:
        rows: Of the matrix.
        kept: Values that are not zero.
        index_bytes: Of a column, and of an end of a row.
    """
    return _WORD * kept + index_bytes * (kept + rows + 1)
