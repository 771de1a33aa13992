"""Experiments as TOML files: what is trained, pruned and measured, every setting a field."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.pruning.connections import DEFAULT_SIGMA_RULE, SigmaRule
from pycaffe_prune.share import share_root

__all__ = [
    "BaselineSpec",
    "ConnectionsSpec",
    "ExperimentSpec",
    "SmallSpec",
    "UnitsSpec",
    "find_experiment",
    "list_presets",
    "read_experiment",
]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaselineSpec(_Spec):
    """Initial training (paper section 4): the best of several initialisations is pruned."""

    seeds: tuple[int, ...] = Field(min_length=1)
    iterations: int = Field(gt=0)


class ConnectionsSpec(_Spec):
    """Connection pruning (paper section 5): rounds of prune and retrain for each alpha."""

    alphas: tuple[float, ...]
    rounds: int = Field(gt=0)
    """The paper's sets."""
    iterations: int = Field(gt=0)
    """Retraining of one round."""
    sigma: SigmaRule = DEFAULT_SIGMA_RULE


class UnitsSpec(_Spec):
    """Unit pruning (paper section 6): scored once, deleted at once, retrained once."""

    layer: str
    """The layer whose share of deleted units is varied."""
    ratios: tuple[float, ...]
    fixed: dict[str, float] = {}
    """Share of the units deleted in other layers, the same at every point."""
    criterion: str = "onorm"
    iterations: int = Field(gt=0)


class SmallSpec(_Spec):
    """Small models: the shapes that unit pruning gives, trained from scratch, the best reported."""

    seeds: tuple[int, ...] = Field(min_length=1)
    iterations: int = Field(gt=0)


class ExperimentSpec(_Spec):
    """A whole experiment. ``solver`` is looked up among the toolkit's files and beside the TOML."""

    name: str
    preset: str
    title: str
    solver: str
    data: Literal["mnist"]
    layers: tuple[str, ...] = Field(min_length=1)
    """The fully connected layers: pruned by connections, and counted in every reduction."""
    ms_per_iteration: float = 1.0
    """For the estimate of --dry-run: one core, one iteration."""
    baseline: BaselineSpec
    connections: ConnectionsSpec
    units: UnitsSpec
    small: SmallSpec


def _folder() -> Path:
    return share_root() / "experiments"


def list_presets() -> dict[str, list[str]]:
    """Return the presets of each experiment that comes with the toolkit."""
    found: dict[str, list[str]] = {}
    for path in _folder().glob("*.*.toml"):
        name, preset = path.stem.split(".", 1)
        found.setdefault(name, []).append(preset)
    return {name: sorted(found[name]) for name in sorted(found)}


def find_experiment(name: str, preset: str) -> Path:
    """Return the TOML file of an experiment: one of the toolkit's, or the user's own by its path.

    Raises:
        FormatError: There is none; the sentence lists what there is.
    """
    if name.endswith(".toml"):
        return existing_file(Path(name), "an experiment's TOML file")
    path = _folder() / f"{name}.{preset}.toml"
    if path.is_file():
        return path
    known = "; ".join(f"{key} ({', '.join(value)})" for key, value in list_presets().items())
    raise FormatError(
        f"there is no experiment '{name}' with preset '{preset}'; there are: {known}; "
        "or name a .toml file of your own"
    )


def read_experiment(path: Path) -> ExperimentSpec:
    """Read an experiment.

    Raises:
        FormatError: The file is no TOML, or a field is missing, misspelt or out of range.
    """
    try:
        fields = tomllib.loads(existing_file(path, "an experiment's TOML file").read_text("utf-8"))
        return ExperimentSpec.model_validate(fields)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise FormatError(f"{path}: {where}: {problem['msg']}") from error
