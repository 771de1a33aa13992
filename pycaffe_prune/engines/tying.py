"""Equal weights that stay equal while a net trains: data that a request and a job carry.

The weights that a run begins with say which: those of a blob that are equal, and not zero, are one
group. Those that are zero stay zero. A group's gradient is the sum of its weights' gradients, or
their mean, and what the solver does with it, it does once for the group: a run trains the shared
values.
"""

from collections.abc import Collection, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pycaffe_prune.engines.named_blobs import require_weights
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["Gradient", "Tying", "require_fitting_tying"]

Gradient = Literal["sum", "mean"]


class Tying(BaseModel):
    """The blobs whose equal weights are tied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    blobs: tuple[BlobKey, ...] = Field(min_length=1)
    signed: bool = False
    """Whether weights of equal magnitude are one group, each with the sign that it begins with; a
    group's gradient is then the sum with these signs."""

    gradient: Gradient = "sum"
    """Of a group, over its weights. The sum is that of the shared value. With the mean a group
    moves as far as single weights do, so that a rate that a net was trained at serves again."""

    @property
    def told(self) -> str:
        """The blobs, for a sentence."""
        blobs = ", ".join(f"{name}/{index}" for name, index in self.blobs)
        signs = " (with their signs)" if self.signed else ""
        return f"{blobs}{signs}{' by the mean gradient' if self.gradient == 'mean' else ''}"

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if twice := [key for key in self.blobs if self.blobs.count(key) > 1]:
            raise ValueError(f"layer '{twice[0][0]}', blob {twice[0][1]} is named twice")
        return self


def require_fitting_tying(
    tying: Tying,
    net: NetParameter,
    inputs: Mapping[str, Shape],
    loaded: Collection[str],
) -> None:
    """See that a net has the blobs whose weights are tied, and a file that says what is equal.

    Args:
        tying: Which they are.
        net: The net that is trained.
        inputs: Shapes of blobs that its prototxt does not tell, as for `infer_shapes`.
        loaded: The layers that the run's files of weights fill.

    Raises:
        SurgeryError: There is no such blob, two are one and the same, or no file has its weights.
    """
    require_weights(tying.blobs, net, inputs, "the tying")
    for name, _ in tying.blobs:
        if name not in loaded:
            raise SurgeryError(
                f"the equal weights of layer '{name}' are to stay equal, and the run begins with "
                "no weights of it from a file; give --weights with those that share their values"
            )
