"""Experiments as TOML files: what is trained, pruned and measured, every setting a field.

A file is one preset of an experiment. A preset that differs from another one in a few settings says
so with ``variant_of`` and holds these settings only: its tables replace the other's key by key.
"""

import tomllib
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.path_names import why_no_component
from pycaffe_prune.pruning.connections import DEFAULT_SIGMA_RULE, SigmaRule
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.share import share_root

__all__ = [
    "BaselineSpec",
    "ConnectionsSpec",
    "ExperimentSpec",
    "NetSpec",
    "SmallSpec",
    "UnitsSpec",
    "WeightsSpec",
    "find_experiment",
    "list_presets",
    "read_experiment",
]


_V = TypeVar("_V", bound=Hashable)


def _different(values: tuple[_V, ...]) -> tuple[_V, ...]:
    """Equal settings would be one stage, planned twice."""
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return values


_Different = AfterValidator(_different)
_Alpha = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, lt=1)]
_Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""As much as Caffe's ``random_seed`` holds; one below 0 would ask for other values each time."""
_Iterations = Annotated[int, Field(gt=0, lt=1 << 31)]
_MOST_ROUNDS = 200
_MOST_STAGES = 20_000
_MOST_BYTES = 1_000_000


def _plain(name: str) -> str:
    """A run's folder and a preset's file are called so."""
    if (why := why_no_component(name)) is not None:
        raise ValueError(f"'{name}' {why}; a plain name such as lenet-5 is needed")
    return name


_Name = Annotated[str, AfterValidator(_plain)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaselineSpec(_Spec):
    """Initial training (docs/protocol.md): the best of several initialisations is pruned."""

    seeds: Annotated[tuple[_Seed, ...], _Different] = Field(min_length=1)
    iterations: _Iterations


class ConnectionsSpec(_Spec):
    """Connection pruning (docs/protocol.md): rounds of prune and retrain for each alpha."""

    alphas: Annotated[tuple[_Alpha, ...], _Different]
    rounds: int = Field(gt=0, le=_MOST_ROUNDS)
    """The paper's sets."""
    iterations: _Iterations
    """Retraining of one round."""
    sigma: SigmaRule = DEFAULT_SIGMA_RULE


class UnitsSpec(_Spec):
    """Unit pruning (docs/protocol.md): scored once, deleted at once, retrained once."""

    layer: str | None = None
    """The layer whose share of deleted units is varied."""
    layers: Annotated[tuple[str, ...], _Different] = ()
    """Or several layers, of which each loses the same share."""
    ratios: Annotated[tuple[_Share, ...], _Different]
    fixed: dict[str, _Share] = {}
    """Share of the units deleted in other layers, the same at every point."""
    criterion: str = "onorm"
    iterations: _Iterations

    @field_validator("criterion")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in UNIT_CRITERIA:
            known = ", ".join(sorted(UNIT_CRITERIA))
            raise ValueError(f"no unit criterion is called '{name}'; there are: {known}")
        return name

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if (self.layer is None) == (not self.layers):
            raise ValueError("give either layer or layers: whose share of units is varied")
        if both := sorted(set(self.varied) & set(self.fixed)):
            raise ValueError(f"the share of layer '{both[0]}' is varied and fixed; give one")
        return self

    @property
    def varied(self) -> tuple[str, ...]:
        """The layers whose share of deleted units is varied."""
        return self.layers if self.layer is None else (self.layer,)


class SmallSpec(_Spec):
    """Small models: the shapes that unit pruning gives, trained from scratch, the best reported."""

    seeds: Annotated[tuple[_Seed, ...], _Different] = Field(min_length=1)
    iterations: _Iterations


class WeightsSpec(_Spec):
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


class NetSpec(_Spec):
    """What is changed in the solver's net before anything is trained."""

    units: dict[str, int] = {}
    """Units of fully connected layers (``num_output``), by name."""


class ExperimentSpec(_Spec):
    """A whole experiment. Solvers are looked up among the toolkit's files and beside the TOML."""

    name: _Name
    preset: _Name
    title: str
    variant_of: _Name | None = None
    """The preset of which this one changes a few settings."""
    reading: str = ""
    """What this preset is, in words; of a variant: which reading of the paper."""
    solver: str
    retraining_solver: str | None = None
    """For what is trained after pruning, where it is another one."""
    data: Literal["mnist", "flowers102", "features"]
    data_settings: dict[str, Any] = {}
    """Keyword arguments of the data set's builder (`data_prep`)."""
    weights: WeightsSpec | None = None
    """None: the initial training begins with random values."""
    net: NetSpec = NetSpec()
    layers: Annotated[tuple[str, ...], _Different] = Field(min_length=1)
    """The fully connected layers: pruned by connections, and counted in every reduction."""
    accuracy: str | None = None
    """The layer of the TEST net that is judged; None: chosen by `engines.test_plan`."""
    ms_per_iteration: float = 1.0
    """For the estimate of --dry-run: one core, one iteration."""
    baseline: BaselineSpec
    connections: ConnectionsSpec
    units: UnitsSpec
    small: SmallSpec | None = None
    """None: no small models."""

    @field_validator("data_settings")
    @classmethod
    def _of_their_types(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings.keys() & _SETTINGS.keys():
            try:
                _SETTINGS[name].validate_python(settings[name], strict=True)
            except ValidationError as error:
                raise ValueError(f"{name}: {_reason(error)}") from error
        return settings

    @model_validator(mode="after")
    def _in_a_lifetime(self) -> Self:
        chains = len(self.connections.alphas) * self.connections.rounds
        shapes = len(self.units.ratios) * (0 if self.small is None else len(self.small.seeds))
        stages = len(self.baseline.seeds) + chains + len(self.units.ratios) + shapes
        if stages > _MOST_STAGES:
            raise ValueError(f"asks for {stages:,} stages; {_MOST_STAGES:,} are the most")
        return self

    @field_validator("units")
    @classmethod
    def _of_its_layers(cls, units: UnitsSpec, info: ValidationInfo) -> UnitsSpec:
        layers = info.data.get("layers", ())  # none: they are at fault themselves
        if layers and (unknown := [n for n in (*units.varied, *units.fixed) if n not in layers]):
            raise ValueError(f"'{unknown[0]}' is none of the layers, which are {', '.join(layers)}")
        return units


_SETTINGS: Mapping[str, TypeAdapter[Any]] = {
    "folder": TypeAdapter(_Name),
    **{name: TypeAdapter(str) for name in ("labels", "mean")},
    **{name: TypeAdapter(bool) for name in ("encoded", "keep_going", "force")},
    **{
        name: TypeAdapter(Annotated[int, Field(gt=0, lt=1 << 31)])
        for name in ("limit", "size", "threads")
    },
}
"""What settings of data sets' builders may be; which of them a builder has, it says itself."""


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
    """Read an experiment, and what it is a variant of: ``NAME.PRESET.toml`` in the same folder.

    Raises:
        FormatError: A file is missing or no TOML, a field is missing, misspelt or out of range, or
            it is a variant of a variant.
    """
    fields = _fields(path)
    if "variant_of" in fields:
        for field in ("name", "variant_of"):  # the two that are the name of a file
            if (why := why_no_component(str(fields.get(field)))) is not None:
                raise FormatError(f"{path}: {field}: '{fields.get(field)}' {why}")
        basis = path.parent / f"{fields.get('name')}.{fields['variant_of']}.toml"
        basic = _fields(existing_file(basis, f"the preset that {path} is a variant of"))
        if "variant_of" in basic:
            raise FormatError(
                f"{path}: is a variant of '{fields['variant_of']}', which is one itself; name "
                f"'{basic['variant_of']}' and give all settings that differ from it"
            )
        fields = _replaced(basic, fields)
    try:
        return ExperimentSpec.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise FormatError(f"{path}: {where}: {_reason(error)}") from error


def _reason(error: ValidationError) -> str:
    """The first thing at fault, without pydantic's name for a sentence of this module."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _fields(path: Path) -> dict[str, Any]:
    if existing_file(path, "an experiment's TOML file").stat().st_size > _MOST_BYTES:
        raise FormatError(f"{path}: is over {_MOST_BYTES:,} bytes, too long for an experiment")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
    except ValueError as error:  # Python's own limit of an integer's digits
        raise FormatError(f"{path}: holds a number of too many digits") from error
    except RecursionError as error:
        raise FormatError(f"{path}: its lists or tables are nested too deeply") from error


def _replaced(basic: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``basic`` with those of ``changed`` for them, in tables key by key."""
    fields = basic | changed
    for name in basic.keys() & changed.keys():
        if isinstance(basic[name], dict) and isinstance(changed[name], dict):
            fields[name] = basic[name] | changed[name]
    return fields
