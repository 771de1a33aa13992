"""How weights change between passes and updates: data that a request and a job carry.

Either masks change. A mask is made anew before the passes of an iteration, so the last one needs an
iteration after it; masks that a run begins with are where those of the same blobs begin, of other
blobs they stay. Or masks stay, and passes use weights on few levels.
"""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pycaffe_prune.engines.named_blobs import require_weights
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.few_bits import LevelRule
from pycaffe_prune.pruning.gradual import CubicSchedule

__all__ = [
    "DynamicSurgery",
    "FewBits",
    "GradualMagnitude",
    "Masking",
    "MovingBlob",
    "read_masking",
    "require_fitting_masking",
]


class MovingBlob(BaseModel):
    """A blob whose mask changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    index: int = Field(0, ge=0)

    @property
    def key(self) -> BlobKey:
        """Layer and index."""
        return self.layer, self.index


class _SurgeryBlob(MovingBlob):
    c: float = Field(allow_inf_nan=False)
    """How many standard deviations above the mean the limits lie."""


class _GradualBlob(MovingBlob):
    sparsity: float = Field(ge=0, lt=1)
    """The share of its weights that is gone in the end."""


class _Masking(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    blobs: tuple[MovingBlob, ...] = Field(min_length=1)

    @property
    def keys(self) -> tuple[BlobKey, ...]:
        """The blobs that it is about, in the order in which they are stored."""
        return tuple(blob.key for blob in self.blobs)

    @property
    def moves_masks(self) -> bool:
        """Whether a run leaves other masks than it began with."""
        return True

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if twice := [key for key in self.keys if self.keys.count(key) > 1]:
            raise ValueError(f"layer '{twice[0][0]}', blob {twice[0][1]} is named twice")
        return self


class DynamicSurgery(_Masking):
    """Dynamic Network Surgery (`pruning.dynamic_surgery`): weights go, and come back."""

    kind: Literal["dynamic_surgery"] = "dynamic_surgery"
    blobs: tuple[_SurgeryBlob, ...] = Field(min_length=1)
    gamma: float = Field(1e-4, ge=0, allow_inf_nan=False)
    power: float = Field(1.0, ge=0, allow_inf_nan=False)
    """In iteration t a blob's mask is made anew with a chance of (1 + gamma * t)^-power."""
    stop: int = Field(ge=0)
    """From this iteration on masks stay."""

    @classmethod
    def of(
        cls, c: Mapping[str, float], stop: int, *, gamma: float = 1e-4, power: float = 1.0
    ) -> Self:
        """Return it for the weights (blob 0) of some layers, each with its own ``c``."""
        blobs = tuple(_SurgeryBlob(layer=layer, c=value) for layer, value in c.items())
        return cls(blobs=blobs, stop=stop, gamma=gamma, power=power)


class GradualMagnitude(_Masking):
    """Gradual magnitude pruning (`pruning.gradual`): the smallest weights go, ever fewer a time."""

    kind: Literal["gradual"] = "gradual"
    blobs: tuple[_GradualBlob, ...] = Field(min_length=1)
    initial: float = Field(0.0, ge=0, lt=1)
    """The share that goes at the first change."""
    begin: int = Field(0, ge=0)
    every: int = Field(ge=1)
    changes: int = Field(ge=1)
    """See `pruning.gradual.CubicSchedule`."""

    @classmethod
    def of(
        cls,
        sparsity: Mapping[str, float],
        *,
        every: int,
        changes: int,
        begin: int = 0,
        initial: float = 0.0,
    ) -> Self:
        """Return it for the weights (blob 0) of some layers, each with its own sparsity."""
        blobs = tuple(
            _GradualBlob(layer=layer, sparsity=value) for layer, value in sparsity.items()
        )
        return cls(blobs=blobs, every=every, changes=changes, begin=begin, initial=initial)

    @property
    def schedule(self) -> CubicSchedule:
        """When masks shrink."""
        return CubicSchedule(self.begin, self.every, self.changes)

    @model_validator(mode="after")
    def _only_shrinks(self) -> Self:
        for blob in self.blobs:
            if blob.sparsity < self.initial:
                raise ValueError(
                    f"layer '{blob.layer}' begins with a sparsity of {self.initial:g} and ends "
                    f"with {blob.sparsity:g}; masks only shrink"
                )
        return self


class _FewBitsBlob(MovingBlob, LevelRule):
    """A blob of which passes use a copy on few levels."""


class FewBits(_Masking):
    """Weights on few levels for all passes, with a straight-through gradient (`pruning.few_bits`).

    The dense weights get the gradient of those on levels, which are made anew before each pass. A
    mask stays as it is.
    """

    kind: Literal["few_bits"] = "few_bits"
    blobs: tuple[_FewBitsBlob, ...] = Field(min_length=1)

    @classmethod
    def of(cls, rules: Mapping[str, LevelRule]) -> Self:
        """Return it for the weights (blob 0) of some layers, each with its own rule."""
        blobs = tuple(
            _FewBitsBlob(layer=layer, **rule.model_dump()) for layer, rule in rules.items()
        )
        return cls(blobs=blobs)

    @property
    def moves_masks(self) -> bool:
        """Whether a run leaves other masks than it began with."""
        return False


Masking = Annotated[DynamicSurgery | FewBits | GradualMagnitude, Field(discriminator="kind")]
_MASKING: TypeAdapter[Masking] = TypeAdapter(Masking)
_WHAT = "a TOML file that says how masks or weights change"


def read_masking(path: Path) -> Masking:
    """Read how masks change: a ``kind``, its fields, and a table ``[[blobs]]`` for each blob.

    Raises:
        FormatError: The file is missing or no TOML, or a field is at fault.
    """
    try:
        fields = tomllib.loads(existing_file(path, _WHAT).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {error}; {_WHAT} is needed") from error
    try:
        return _MASKING.validate_python(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "masks"
        raise FormatError(
            f"{path}: {where}: {problem['msg'].removeprefix('Value error, ')}"
        ) from error


def require_fitting_masking(
    masking: Masking,
    net: NetParameter,
    inputs: Mapping[str, Shape],
    solver: Path,
    max_iter: int,
    masked: Collection[BlobKey] = (),
) -> None:
    """See that a net has the blobs that a masking is about, and a run the time for it.

    Args:
        masking: How they change.
        net: The net that is trained.
        inputs: Shapes of blobs that its prototxt does not tell, as for `infer_shapes`.
        solver: The run's, to begin sentences with.
        max_iter: Iterations of the run.
        masked: The blobs that it begins with masks of.

    Raises:
        FormatError: The run ends before the last change.
        SurgeryError: There is no such blob, two are one and the same, or a mask is given to one by
            the name of another layer that shares it.
    """
    if isinstance(masking, GradualMagnitude) and masking.schedule.last >= max_iter:
        raise FormatError(
            f"{solver}: the run ends after {max_iter} iterations, and its last masks are made "
            f"before iteration {masking.schedule.last}, counted from 0; give a larger --max-iter, "
            "or fewer changes"
        )
    require_weights(masking.keys, net, inputs, "the masking")
    owners = blob_owners(layers_in_state(net, NetState(TRAIN)))
    _refuse_masks_by_other_names(masking.keys, masked, owners)


def _refuse_masks_by_other_names(
    keys: Sequence[BlobKey], masked: Collection[BlobKey], owners: Mapping[BlobKey, BlobKey]
) -> None:
    named = {owners.get(key, key): key for key in keys}
    for key in masked:
        own = named.get(owners.get(key, key), key)
        if own != key and own not in masked:
            raise SurgeryError(
                f"layers '{own[0]}' and '{key[0]}' share one blob; the masking names the one, the "
                f"mask the other: let the masking name '{key[0]}'"
            )
