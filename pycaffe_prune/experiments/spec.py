"""Experiments as TOML files: what is trained, pruned and measured, every setting a field.

A file is one preset of an experiment. A preset that differs from another one in a few settings says
so with ``variant_of`` and holds these settings only: its tables replace the other's key by key.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.migration import MigrationError, with_methods
from pycaffe_prune.experiments.settings import Different, Iterations, Name, Seed, Spec, WeightsSpec
from pycaffe_prune.formats.files import existing_file
from pycaffe_prune.methods.base import Method
from pycaffe_prune.methods.registry import method_of
from pycaffe_prune.path_names import why_no_component
from pycaffe_prune.share import share_root

__all__ = [
    "BaselineSpec",
    "ExperimentSpec",
    "NetSpec",
    "PretrainingSpec",
    "find_experiment",
    "list_presets",
    "read_experiment",
]

_MOST_STAGES = 20_000
_MOST_BYTES = 1_000_000


class BaselineSpec(Spec):
    """Initial training, from one or several initialisations."""

    seeds: Annotated[tuple[Seed, ...], Different] = Field(min_length=1)
    iterations: Iterations
    prune: Literal["best", "each"] = "best"
    """Which of them the methods begin with: the best, as in the paper (docs/protocol.md), or each,
    so that every point is there once for each seed."""


class NetSpec(Spec):
    """What is changed in the solver's net before anything is trained."""

    units: dict[str, Annotated[int, Field(gt=0, lt=1 << 31)]] = Field(default_factory=dict)
    """Units of fully connected layers and filters of convolutions (``num_output``), by name."""


class PretrainingSpec(Spec):
    """A training on other data, whose weights the initial training of the same seed begins with.

    Layers are copied by name, as those of `WeightsSpec`: a new classifier has a new name.
    """

    solver: str
    """Looked up as the experiment's; it names the net that is pre-trained."""
    folder: Name
    """Of the data set, below ``data/``; it is made before (`caffe-prune data`)."""
    iterations: Iterations
    net: NetSpec = NetSpec()


def _methods(tables: object) -> object:
    if not isinstance(tables, (list, tuple)):
        raise ValueError("is a list of [[methods]] tables")  # noqa: TRY004  (pydantic's kind)
    return tuple(map(_method, tables))


def _method(table: object) -> object:
    if isinstance(table, Method):
        return table
    if not isinstance(table, dict):
        raise ValueError("is a list of [[methods]] tables")  # noqa: TRY004  (as above)
    try:
        return method_of(table)
    except ValidationError as error:
        called = table.get("name") or table["kind"]
        where = ".".join(map(str, (called, *error.errors()[0]["loc"])))
        raise ValueError(f"{where}: {_reason(error)}") from error


class ExperimentSpec(Spec):
    """A whole experiment. Solvers are looked up among the toolkit's files and beside the TOML."""

    name: Name
    preset: Name
    title: str
    variant_of: Name | None = None
    """The preset of which this one changes a few settings."""
    reading: str = ""
    """What this preset is, in words; of a variant: which reading of the paper."""
    solver: str
    retraining_solver: str | None = None
    """For what is trained after pruning, where it is another one."""
    data: Literal["mnist", "flowers102", "features", "subset"]
    data_settings: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the data set's builder (`data_prep`)."""
    weights: WeightsSpec | None = None
    """None: the initial training begins with random values."""
    pretraining: PretrainingSpec | None = None
    """In place of ``weights``: they are trained as well."""
    net: NetSpec = NetSpec()
    layers: Annotated[tuple[str, ...], Different] = Field(min_length=1)
    """The fully connected layers: pruned by connections, and counted in every reduction."""
    accuracy: str | None = None
    """The layer of the TEST net that is judged; None: chosen by `engines.test_plan`."""
    ms_per_iteration: float = 1.0
    """For the estimate of --dry-run: one core, one iteration."""
    baseline: BaselineSpec
    methods: Annotated[tuple[SerializeAsAny[Method], ...], BeforeValidator(_methods)] = ()
    """In the order of their tables; `pycaffe_prune.methods` says which there are."""

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
    def _that_go_together(self) -> Self:
        if twice := [n for n, c in Counter(m.called for m in self.methods).items() if c > 1]:
            raise ValueError(f"methods: two are called '{twice[0]}'; give one of them a name")
        for number, method in enumerate(self.methods):
            try:
                method.check(self.layers, self.methods[:number])
            except ValueError as error:
                raise ValueError(f"methods: {method.called}: {error}") from error
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.weights is not None and self.pretraining is not None:
            raise ValueError("give either weights or pretraining")
        return self

    @model_validator(mode="after")
    def _in_a_lifetime(self) -> Self:
        stages = sum(
            method.most_stages(self.methods[:number]) for number, method in enumerate(self.methods)
        )
        seeds = len(self.baseline.seeds)
        initial = seeds if self.pretraining is None else 2 * seeds
        if (
            stages := stages * (1 if self.baseline.prune == "best" else seeds) + initial
        ) > _MOST_STAGES:
            raise ValueError(f"asks for {stages:,} stages; {_MOST_STAGES:,} are the most")
        return self


_SETTINGS: Mapping[str, TypeAdapter[Any]] = {
    "folder": TypeAdapter(Name),
    **{name: TypeAdapter(str) for name in ("labels", "mean")},
    **{name: TypeAdapter(bool) for name in ("encoded", "keep_going", "force")},
    **{
        name: TypeAdapter(Annotated[int, Field(gt=0, lt=1 << 31)])
        for name in ("hold_out", "limit", "size", "threads")
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
        return with_methods(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}") from error
    except MigrationError as error:
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
    if "methods" in basic and "methods" in changed:
        fields["methods"] = _replaced_methods(basic["methods"], changed["methods"])
    return fields


def _replaced_methods(basic: object, changed: object) -> object:
    """Tables of one name, or of one kind without a name, are one; others are added."""
    if not (isinstance(basic, list) and isinstance(changed, list)):
        return changed
    fields = {_called(table): table for table in basic}
    for table in changed:
        called = _called(table)
        known = fields.get(called)
        both = isinstance(known, dict) and isinstance(table, dict)
        fields[called] = {**known, **table} if both else table  # type: ignore[dict-item]
    return list(fields.values())


def _called(table: object) -> str:
    if not isinstance(table, dict):
        return str(table)
    return str(table.get("name") or table.get("kind"))
