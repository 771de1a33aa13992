"""Types of what stands in an experiment's TOML file."""

from collections import Counter
from collections.abc import Hashable
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pycaffe_prune.path_names import why_no_component

__all__ = [
    "MOST_ROUNDS",
    "Different",
    "Iterations",
    "Name",
    "Seed",
    "Share",
    "Spec",
    "WeightsSpec",
]

_V = TypeVar("_V", bound=Hashable)

MOST_ROUNDS = 200


def _different(values: tuple[_V, ...]) -> tuple[_V, ...]:
    """Equal settings would be one stage, planned twice."""
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return values


def _plain(name: str) -> str:
    """A run's folder and a preset's file are called so."""
    if (why := why_no_component(name)) is not None:
        raise ValueError(f"'{name}' {why}; a plain name such as lenet-5 is needed")
    return name


Different = AfterValidator(_different)
Name = Annotated[str, AfterValidator(_plain)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""As much as Caffe's ``random_seed`` holds; one below 0 would ask for other values each time."""
Iterations = Annotated[int, Field(gt=0, lt=1 << 31)]


class Spec(BaseModel):
    """A table: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsSpec(Spec):
    """Trained weights that the initial training begins with, copied layer by layer by name."""

    path: str | None = None
    """A file, relative to the TOML file or the working directory."""
    zoo: str | None = None
    """Name in `convert.zoo.ZOO`, whose file is looked for in ``weights/`` and ``zoo/``."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.zoo is None):
            raise ValueError("give either path or zoo")
        return self
