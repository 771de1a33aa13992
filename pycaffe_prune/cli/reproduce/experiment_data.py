"""The data set of an experiment: built where it is not there yet."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from data_prep.digits import build_digits
from data_prep.manifest import MANIFEST_NAME, Manifest, Split, SplitName, load_manifest
from data_prep.mean import COMPUTED, mean_of
from data_prep.mnist import build_mnist
from pycaffe_prune.cli.options import say_remark
from pycaffe_prune.cli.progress import console
from pycaffe_prune.engines.contents import Content, lmdb_content
from pycaffe_prune.errors import DataError, DownloadError, FormatError
from pycaffe_prune.experiments.plan import pretraining_solver_path
from pycaffe_prune.experiments.pretraining import PretrainingFiles
from pycaffe_prune.experiments.result import DataSet
from pycaffe_prune.experiments.spec import ExperimentSpec

__all__ = [
    "data_folder",
    "data_set_of",
    "get_data",
    "known_data_set",
    "made_data_set",
    "pretraining_files",
]

# Among the data settings: the one that is not the builder's, and the one that a manifest tells.
_FOLDER = "folder"
_MEAN = "mean"
_MADE_BY = {"features": "caffe-prune features", "subset": "caffe-prune data subset"}
"""Data sets that are made of another one, by the user; what makes them."""


def data_folder(spec: ExperimentSpec, given: Path | None) -> Path:
    """Return where the experiment's LMDBs are: as the user says, else under ``data/``."""
    return given or Path("data") / spec.data_settings.get(_FOLDER, spec.data)


def get_data(
    spec: ExperimentSpec, given: Path | None, source: Path | None
) -> tuple[Path, Manifest]:
    """Find or build the experiment's data set.

    Args:
        spec: The experiment.
        given: Folder of the LMDBs as the user names it; one that is complete is taken as it is, if
            its mean image is the one that the experiment asks for.
        source: Folder of the original files.

    Returns:
        The folder and its manifest. For MNIST without network and files: the bundled sample, said
        loudly.

    Raises:
        DataError: The data cannot be had.
        FormatError: The experiment's data settings are none of the builder's.
        UsageError: The experiment has no use for ``source``.
    """
    if source is not None and (made_by := _MADE_BY.get(spec.data)) is not None:
        raise click.UsageError(
            f"--source is for original files, and this data set is made of another one by "
            f"`{made_by}`; name its folder with --data"
        )
    place = data_folder(spec, given)
    if (place / MANIFEST_NAME).is_file():
        manifest = load_manifest(place)
        _require_mean(spec, place, manifest)
        if given is not None:
            if source is not None:
                say_remark(f"--source is not read: {given} is a complete data set")
            return given, manifest
    if (made_by := _MADE_BY.get(spec.data)) is not None:
        return place, _made(place, made_by)
    try:
        return _build(spec, place, source)
    except DataError as error:
        raise DataError(
            f"{error} (`caffe-prune data {spec.data} --out DIR` has all options for building it, "
            "and --data DIR takes what it built)"
        ) from error


def _build(spec: ExperimentSpec, place: Path, source: Path | None) -> tuple[Path, Manifest]:
    if spec.data == "mnist":
        return _mnist(place, source, _settings(spec, build_mnist))
    # Here, not above: it needs packages that MNIST does without.
    from data_prep.flowers102 import build_flowers102

    settings = _settings(spec, build_flowers102)
    return place, build_flowers102(place, source, console=console, **settings)


def _require_mean(spec: ExperimentSpec, place: Path, manifest: Manifest) -> None:
    """Refuse a data set whose mean image is not the experiment's."""
    setting = spec.data_settings.get(_MEAN, COMPUTED)
    if manifest.mean_of != (wanted := mean_of(setting)):
        raise DataError(
            f"{place}: has the mean image of {manifest.mean_of}, but experiment '{spec.name}', "
            f"preset '{spec.preset}' is on that of {wanted}; build another data set with "
            f"`caffe-prune data {spec.data} --mean {setting} --out DIR`, and name DIR with --data"
        )


def _settings(spec: ExperimentSpec, build: Callable[..., Manifest]) -> dict[str, Any]:
    """The experiment's settings for the builder, which knows them all."""
    settings = {name: value for name, value in spec.data_settings.items() if name != _FOLDER}
    known = [
        name
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in settings:
        if name not in known:
            raise FormatError(
                f"experiment '{spec.name}', preset '{spec.preset}': data_settings.{name}: there is "
                f"no such setting; there are: {', '.join([_FOLDER, *known])}"
            )
    return settings


def _made(place: Path, made_by: str) -> Manifest:
    try:
        return load_manifest(place)
    except DataError as error:
        raise DataError(
            f"{error}. Make this one with `{made_by} … --out {place}`, or name its folder with "
            "--data"
        ) from error


def _mnist(place: Path, source: Path | None, settings: dict[str, Any]) -> tuple[Path, Manifest]:
    try:
        return place, build_mnist(place, source, console=console, **settings)
    except DownloadError as error:
        sample = Path("data") / "digits"
        console.print(f"MNIST CANNOT BE HAD: {error}", style="bold yellow")
        console.print(
            "GOING ON WITH THE BUNDLED SAMPLE (1,797 digits of scikit-learn). Its figures say "
            "nothing about the paper's; give the four MNIST files with --source.",
            style="bold yellow",
        )
        return sample, build_digits(sample, console=console)


def pretraining_files(
    spec: ExperimentSpec, toml: Path, given: Path | None, told: Callable[[Path], DataSet]
) -> PretrainingFiles | None:
    """Return what the experiment's pre-training is made of; None: it has none.

    Args:
        spec: The experiment.
        toml: Its file.
        given: Folder of the experiment's own LMDBs as the user names it; that of the pre-training
            is looked for beside it.
        told: Says what a folder holds: `made_data_set` or `known_data_set`.

    Raises:
        FormatError: The solver is nowhere.
    """
    solver = pretraining_solver_path(spec, toml)
    if spec.pretraining is None or solver is None:
        return None
    place = (Path("data") if given is None else given.parent) / spec.pretraining.folder
    return PretrainingFiles(solver, place, told(place))


def made_data_set(place: Path) -> DataSet:
    """Return what a data set holds that the user has made.

    Raises:
        DataError: It is not there, or damaged.
    """
    try:
        return data_set_of(load_manifest(place), place)
    except DataError as error:
        raise DataError(f"{error} (it is what the experiment pre-trains on)") from error


def data_set_of(manifest: Manifest, place: Path) -> DataSet:
    """Return what a result says of its data: what is in the LMDBs now.

    Where that is not what the manifest says (labels were corrected, say), it is said.

    Args:
        manifest: That of the data set.
        place: Its folder.

    Raises:
        DataError: An LMDB is missing or damaged.
    """
    train, test = (_content(manifest.splits[name], place) for name in get_args(SplitName))
    return DataSet(
        name=manifest.name,
        is_sample=manifest.is_sample,
        train_images=train.records,
        test_images=test.records,
        train_sha256=train.sha256,
        test_sha256=test.sha256,
    )


def _content(split: Split, place: Path) -> Content:
    found = lmdb_content(place / split.lmdb)
    if found.sha256 != split.sha256:
        say_remark(
            f"{place / split.lmdb}: its records are not those of its manifest; going on with what "
            "is there"
        )
    return found


def known_data_set(place: Path) -> DataSet:
    """Return what is built already, so that --dry-run can tell which stages are done."""
    try:
        return data_set_of(load_manifest(place), place)
    except DataError:
        return DataSet(
            name="not built",
            is_sample=False,
            train_images=0,
            test_images=0,
            train_sha256="",
            test_sha256="",
        )
