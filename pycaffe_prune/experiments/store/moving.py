"""Stages as another machine, or another folder, sees them: same keys, other places."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.stages import Context, Stage
from pycaffe_prune.formats.files import atomic_write, sha256_of

__all__ = ["Kept", "Places", "moved"]

_S = TypeVar("_S", bound=Stage)


class Places(Protocol):
    """Says where the files of stages lie; their contents stay what they are."""

    def folder(self, folder: ExperimentFolder) -> ExperimentFolder:
        """Return the folder in which stages lie."""
        ...

    def file(self, path: Path) -> Path:
        """Return where a solver, a net or trained weights lie."""
        ...

    def data(self, path: Path) -> Path:
        """Return where the data set lies."""
        ...


def moved(stage: _S, places: Places) -> _S:
    """Return the stage, and all that it is made of, with its files in other places.

    The key is a hash over contents, not places: it stays what it was.
    """
    changed: dict[str, Any] = {
        field.name: _moved_value(getattr(stage, field.name), places) for field in fields(stage)
    }
    return replace(stage, **changed)


def _moved_value(value: object, places: Places) -> object:
    match value:
        case Context():
            retraining = value.retraining_solver
            return replace(
                value,
                folder=places.folder(value.folder),
                solver=places.file(value.solver),
                net=places.file(value.net),
                data=places.data(value.data),
                retraining_solver=None if retraining is None else places.file(retraining),
            )
        case Pretrained():
            return replace(value, path=places.file(value.path))
        case Stage():
            return moved(value, places)
        case tuple():
            return tuple(_moved_value(part, places) for part in value)
    return value


class Kept:
    """Places in the experiment's folder, which keeps copies of solvers, nets and trained weights.

    With that, it holds all that a worker needs beside the data. All paths become absolute.

    Args:
        folder: The experiment's.
    """

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder.path.resolve()
        self._copies: dict[Path, Path] = {}

    def folder(self, folder: ExperimentFolder) -> ExperimentFolder:
        """See `Places`."""
        return ExperimentFolder(folder.path.resolve())

    def file(self, path: Path) -> Path:
        """See `Places`."""
        if path not in self._copies:
            # Named by its content: a folder may hold stages of several versions of a solver.
            copy = self._folder / "inputs" / sha256_of(path)[:12] / path.name
            if not copy.is_file():
                with atomic_write(copy) as temporary:
                    shutil.copyfile(path, temporary)
            self._copies[path] = copy
        return self._copies[path]

    def data(self, path: Path) -> Path:
        """See `Places`."""
        return path.resolve()
