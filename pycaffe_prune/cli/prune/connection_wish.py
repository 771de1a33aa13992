"""What the options of ``caffe-prune prune connections`` ask for, and which go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from pycaffe_prune.cli.prune.connection_masks import (
    GLOBAL,
    Pruned,
    by_alpha,
    by_curvature,
    by_random,
    by_ratio,
    of_zeros,
)
from pycaffe_prune.engines.curvature import CurvatureKind, CurvatureRequest
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.pruning.connections import DEFAULT_SIGMA_RULE, SigmaRule

__all__ = ["METHODS", "ConnectionWish"]

_THRESHOLD, _MAGNITUDE, _RANDOM = "threshold", "magnitude", "random"
_CURVATURES: Mapping[str, CurvatureKind] = {"obd": "hessian", "fisher": "fisher"}
METHODS = (_THRESHOLD, _MAGNITUDE, _RANDOM, *_CURVATURES)
"""What ``--method`` may be."""

_BATCHES = 100


@dataclass(frozen=True)
class ConnectionWish:
    """The options by which connections are chosen; None, and no value: not given."""

    net: Path
    weights: Path
    alphas: tuple[str, ...]
    ratios: tuple[str, ...]
    mask_zeros: bool
    method: str | None
    scope: str
    sigma: str | None
    mask: Path | None
    original: Path | None
    seed: int | None
    batches: int | None
    data: Path | None
    weight_decay: float | None
    device: str
    state: StateWish

    @property
    def values(self) -> tuple[str, ...]:
        """The alphas, or the ratios."""
        return self.alphas or self.ratios

    @property
    def chosen(self) -> str:
        """The method; where none is named, the one that the values are for."""
        return self.method or (_THRESHOLD if self.alphas else _MAGNITUDE)

    def require_consistent(self) -> None:
        """Refuse options that do not go together.

        Raises:
            click.UsageError: Some do not; the sentence names them.
        """
        if self.mask_zeros:
            self._require_zeros_alone()
            return
        self._require_values()
        if self.seed is not None and self.chosen != _RANDOM:
            raise click.UsageError("--seed goes with --method random")
        if self._measures and self.chosen not in _CURVATURES:
            raise click.UsageError(
                "--batches, --data, --weight-decay and --device go with --method obd and fisher, "
                "which look at training images"
            )
        initial = (self.sigma or DEFAULT_SIGMA_RULE) == SigmaRule.INITIAL
        if self.alphas and self.mask is not None and self.original is None and initial:
            raise click.UsageError("with --mask and --sigma initial, name the unpruned --original")

    @property
    def _measures(self) -> bool:
        given = (self.batches, self.data, self.weight_decay)
        return self.device != "cpu" or any(value is not None for value in given)

    def _require_zeros_alone(self) -> None:
        others = (self.values, self.method, self.sigma, self.original, self._measures)
        if any(others) or self.scope == GLOBAL or self.seed is not None:
            raise click.UsageError(
                "--mask-zeros takes no --alpha, --ratio, --method, --scope, --sigma, --original, "
                "--seed, --batches, --data, --weight-decay, --device"
            )

    def _require_values(self) -> None:
        if bool(self.alphas) == bool(self.ratios):
            raise click.UsageError("give either --alpha or --ratio, or --mask-zeros")
        if self.alphas and self.chosen != _THRESHOLD:
            raise click.UsageError(
                f"--method {self.chosen} ranks weights: give --ratio, no --alpha"
            )
        if self.ratios and self.chosen == _THRESHOLD:
            raise click.UsageError("--method threshold takes --alpha; a --ratio ranks weights")
        if self.ratios and (self.sigma or self.original):
            raise click.UsageError("--sigma and --original go with --alpha; a ratio needs no sigma")
        if self.scope == GLOBAL and (len(self.values) > 1 or "=" in self.values[0]):
            raise click.UsageError("--scope global takes one value for all layers together")

    def choose(
        self,
        model: Caffemodel,
        values: Mapping[BlobKey, float],
        earlier: Mapping[BlobKey, Mask],
    ) -> Pruned:
        """Return the masks that are asked for.

        Args:
            model: The weights.
            values: Per blob the alpha or ratio.
            earlier: Masks of the round before.

        Raises:
            PruneError: As the functions of `connection_masks`.
        """
        if self.mask_zeros:
            return of_zeros(model, list(values), earlier)
        if self.chosen == _THRESHOLD:
            first = read_weights(self.original) if self.original else model
            rule = SigmaRule(self.sigma) if self.sigma else DEFAULT_SIGMA_RULE
            return by_alpha(first, model, values, self.scope, rule, earlier)
        if self.chosen == _MAGNITUDE:
            return by_ratio(model, values, self.scope, earlier)
        if self.chosen == _RANDOM:
            return by_random(model, values, self.scope, earlier, self.seed or 0)
        request = CurvatureRequest(
            net=self.net,
            weights=self.weights,
            model=model,
            kind=_CURVATURES[self.chosen],
            batches=self.batches or _BATCHES,
            blobs=tuple(values),
            data=self.data,
            device=self.device,
            state=self.state,
        )
        decay = self.weight_decay or 0.0
        return by_curvature(self.chosen, values, self.scope, earlier, request, decay)
