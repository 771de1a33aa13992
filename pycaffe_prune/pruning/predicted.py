"""Weights predicted from a few of their inputs by a fixed dictionary (Denil et al. 2013).

What a unit weighs its inputs with varies smoothly over them (over the pixels of an image, say).
Kernel ridge regression from the weights of a few sampled inputs tells those of all:
W = V·D with D = (K_s + λ·I)⁻¹·k_s, where K_s is the kernel between the sampled inputs and k_s that
between them and all. D depends on no weight, so that V alone is learned: one column for each
sampled input in the place of one for each input. D is divided by its largest singular value: what
it puts out is then no larger than what it reads, and the rate that the layer was trained with is
none too high for V, as it is where D adds up many inputs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.pruning.low_rank import Factors

__all__ = [
    "dictionary",
    "normalised",
    "predicted",
    "relative_error",
    "sampled_inputs",
    "squared_exponential",
]

_Array = NDArray[np.float64]
_Ids = NDArray[np.int64]


def sampled_inputs(inputs: int, share: float, seed: int) -> _Ids:
    """Draw the inputs that the others are predicted from.

    Args:
        inputs: How many there are.
        share: The share of them that is predicted, from 0 on and below 1; one input stays at least.
        seed: Of the draw.

    Returns:
        Their places, rising.
    """
    count = max(1, round((1 - share) * inputs))
    return np.sort(np.random.default_rng(seed).choice(inputs, count, replace=False))


def squared_exponential(shape: Sequence[int], samples: _Ids, scale: float) -> _Array:
    """Return the kernel exp(-d²/2·scale²) between all inputs and the sampled ones.

    Args:
        shape: Of what the layer reads of one image. The last two axes are the places, d the
            distance between two of them in pixels; what differs in the axes before is unrelated.
        samples: Places of the sampled inputs in that order.
        scale: In pixels, above 0.

    Returns:
        Inputs x samples.

    Raises:
        SurgeryError: There are no two axes of more than one place.
    """
    if len(shape) < 2 or shape[-1] * shape[-2] == 1:
        extents = "x".join(map(str, shape))
        raise SurgeryError(
            f"reads {extents} values an image, which have no places beside each other that a "
            "squared exponential needs; take the covariance of its inputs, or name other layers"
        )
    height, width = shape[-2:]
    places = np.stack(np.divmod(np.arange(height * width), width), axis=1).astype(np.float64)
    at = np.arange(int(np.prod(shape)))
    map_of, place_of = np.divmod(at, height * width)
    apart = places[place_of][:, None] - places[place_of[samples]][None]
    near = np.exp(-np.square(apart).sum(axis=2) / (2 * scale**2))
    return np.where(map_of[:, None] == map_of[samples][None], near, 0.0)


def normalised(covariance: _Array, variances: _Array) -> _Array:
    """Return a covariance as a kernel: divided by the mean variance, so that λ means as much.

    Args:
        covariance: Inputs x samples.
        variances: Of all inputs.

    Raises:
        SurgeryError: Nothing varies.
    """
    mean = float(variances.mean())
    if not mean > 0:
        raise SurgeryError("reads the same values of every image, which have no covariance")
    return covariance / mean


def dictionary(kernel: _Array, samples: _Ids, ridge: float) -> _Array:
    """Return D, samples x inputs: what each sampled input tells of each.

    Args:
        kernel: Between all inputs and the sampled ones, inputs x samples.
        samples: Places of the sampled inputs.
        ridge: λ, above 0: how far the prediction at a sampled input may be from its weights.

    Returns:
        Of largest singular value 1.
    """
    between = kernel[samples] + ridge * np.eye(len(samples))
    found = np.asarray(np.linalg.solve(between, kernel.T), np.float64)
    return found / np.linalg.norm(found, 2)


def predicted(matrices: _Array, fixed: _Array) -> Factors:
    """Return the dictionary and what is learned: at the start what comes nearest to the weights.

    Args:
        matrices: Groups x units x inputs, as `low_rank.as_matrices` gives them.
        fixed: The dictionary, samples x inputs.

    Returns:
        ``first`` is the dictionary, the same for each group; ``second`` groups x units x samples,
        by least squares.
    """
    found = [np.linalg.lstsq(fixed.T, one.T, rcond=None)[0].T for one in matrices]
    return Factors(np.broadcast_to(fixed, (len(matrices), *fixed.shape)), np.stack(found))


def relative_error(matrices: _Array, factors: Factors) -> float:
    """Return |W - V·D|² / |W|², 0 where all weights are."""
    total = float(np.square(matrices).sum())
    apart = float(np.square(matrices - factors.second @ factors.first).sum())
    return apart / total if total else 0.0
