"""Scores of connections, by which a ratio ranks them: the lowest go first.

Each criterion is ``(weights, curvature, seed) -> scores``, all of one shape and float32; scores are
not negative. ``curvature`` is what an engine measured on training images, for the criteria that
need it; ``seed`` is for random ones.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.mask import Mask

__all__ = [
    "CONNECTION_CRITERIA",
    "ConnectionCriterion",
    "Curvature",
    "connection_criterion",
    "connection_scores",
    "loss_increase",
    "with_slope",
]


class Curvature(StrEnum):
    """Which estimate of the second derivative of the loss by each weight."""

    HESSIAN = "hessian"
    """The diagonal of the Hessian, by LeCun's backward recursion."""
    FISHER = "fisher"
    """The mean square of the gradients of single images."""


@dataclass(frozen=True)
class ConnectionCriterion:
    """How connections are scored, and what that needs."""

    scores: Callable[[Blob, Blob, int], Blob]
    curvature: Curvature | None = None
    """What has to be measured first; None: the weights are enough."""


def _magnitude(weights: Blob, curvature: Blob, seed: int) -> Blob:  # noqa: ARG001  (common signature)
    """|w|."""
    return np.asarray(np.abs(weights))


def _random(weights: Blob, curvature: Blob, seed: int) -> Blob:  # noqa: ARG001  (common signature)
    """Uniform scores: the control that every other criterion must beat."""
    return np.random.default_rng(seed).random(weights.shape, np.float32)


def _saliency(weights: Blob, curvature: Blob, seed: int) -> Blob:  # noqa: ARG001  (common signature)
    """|w|·√h, which ranks as the saliency h·w²/2 does (LeCun et al. 1989).

    The saliency itself is often too small for a float32.
    """
    return np.asarray(np.abs(weights) * np.sqrt(curvature))


CONNECTION_CRITERIA: dict[str, ConnectionCriterion] = {
    "fisher": ConnectionCriterion(_saliency, Curvature.FISHER),
    "magnitude": ConnectionCriterion(_magnitude),
    "obd": ConnectionCriterion(_saliency, Curvature.HESSIAN),
    "random": ConnectionCriterion(_random),
}
"""Every criterion by the name that the command line and the TOML files use."""


def connection_criterion(name: str) -> ConnectionCriterion:
    """Return the criterion called ``name``.

    Raises:
        SurgeryError: There is none; the sentence lists them.
    """
    try:
        return CONNECTION_CRITERIA[name]
    except KeyError:
        known = ", ".join(sorted(CONNECTION_CRITERIA))
        raise SurgeryError(
            f"no connection criterion is called '{name}'; there are: {known}"
        ) from None


def connection_scores(
    name: str,
    weights: Mapping[BlobKey, Blob],
    *,
    curvature: Mapping[BlobKey, Blob] | None = None,
    seed: int = 0,
) -> dict[BlobKey, Blob]:
    """Return the scores of some blobs by the criterion called ``name``.

    Args:
        name: One of `CONNECTION_CRITERIA`.
        weights: Float32, any shapes.
        curvature: Per blob the second derivatives that the criterion asks for, of its shape, not
            negative; None where it asks for none.
        seed: Of random scores. A blob's scores depend on it and the blob's name alone, not on which
            other blobs there are.

    Returns:
        Per blob its scores, float32, of its shape.

    Raises:
        SurgeryError: There is no such criterion, or the curvature that it needs is missing, has
            another shape, or is negative or not finite.
    """
    criterion = connection_criterion(name)
    if criterion.curvature:
        for key, blob in weights.items():
            _require_curvature(name, key, blob, curvature or {})
    return {
        key: criterion.scores(
            blob, curvature[key] if criterion.curvature and curvature else blob, _seed(key, seed)
        )
        for key, blob in weights.items()
    }


def with_slope(curvature: Mapping[BlobKey, Blob], weight_decay: float) -> dict[BlobKey, Blob]:
    """Return second derivatives that count the slope of the loss, too: h + 2·weight_decay.

    Where a solver with L2 decay has come to rest, the loss has the gradient -weight_decay·w. So
    when w becomes zero it rises by weight_decay·w² besides h·w²/2.

    Args:
        curvature: Per blob, float32.
        weight_decay: Of that solver (times a ``decay_mult`` other than 1).

    Raises:
        SurgeryError: It is negative or not finite.
    """
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise SurgeryError(f"weight_decay is a number from 0 on, not {weight_decay}")
    return {key: blob + np.float32(2 * weight_decay) for key, blob in curvature.items()}


def loss_increase(weights: Blob, curvature: Blob, kept: Mask) -> float:
    """Return by how much the loss rises, to second order, when some weights become zero.

    It is the sum of their saliencies, h·w²/2, taken in float64.

    Args:
        weights: Float32.
        curvature: Second derivatives of the loss, of the same shape.
        kept: Of the same shape, False where a weight goes.
    """
    gone = np.square(weights[~kept], dtype=np.float64)
    return float((gone * curvature[~kept]).sum() / 2)


def _seed(key: BlobKey, seed: int) -> int:
    """A seed of the blob's own: two blobs of one shape must not lose the same places."""
    name, index = key
    digest = hashlib.blake2b(f"{seed}/{index}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _require_curvature(
    criterion: str, key: BlobKey, weights: Blob, curvature: Mapping[BlobKey, Blob]
) -> None:
    where = f"layer '{key[0]}', blob {key[1]}"
    if key not in curvature:
        raise SurgeryError(
            f"{where}: the criterion '{criterion}' needs its second derivatives, which were not "
            "measured"
        )
    found = curvature[key]
    if found.shape != weights.shape:
        shapes = ["x".join(map(str, blob.shape)) for blob in (weights, found)]
        raise SurgeryError(
            f"{where}: its second derivatives are {shapes[1]}, its weights {shapes[0]}"
        )
    bad = found.size - int(np.count_nonzero(np.isfinite(found) & (found >= 0)))
    if bad:
        raise SurgeryError(
            f"{where}: {bad} of its {found.size} second derivatives are negative, NaN or infinite"
        )
