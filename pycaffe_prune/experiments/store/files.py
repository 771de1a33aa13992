"""A run folder that is not on any machine: stages, definition and data at an fsspec URL.

Workers do a stage in a scratch folder of their own. Before it they fetch what it needs, at each of
its snapshots and at its end they put there what it made. The order of writing is that of a run
folder: what tells that something is whole (a solverstate, ``stage.json``, the data's mark) last.

There are no locks at a URL. Of two workers that do the same stage (one of them cut off from its
scheduler) the first to finish counts; on a CPU both find the same bits.
"""

import hashlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pycaffe_prune.engines.base import Engine, Event, Observer
from pycaffe_prune.engines.contents import NOTES_ENDING, file_contents
from pycaffe_prune.errors import DataError, PruneError
from pycaffe_prune.experiments.baselines import Baseline
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.experiments.store.moving import moved
from pycaffe_prune.experiments.store.stage_lock import Stop
from pycaffe_prune.formats.files import atomic_write, sha256_of, write_text

__all__ = ["AtStore", "Store", "fetch_outputs", "run_in_store"]

_WHOLE = "whole"
"""The file that marks data as complete."""
_UNSHARED = frozenset({".lock", "lock.mdb"})
_WRITTEN_ONCE = frozenset({"pruned.caffemodel", "kept.mask.h5", "train/mask.npz"})
"""Large files of a stage that are the same in every attempt at it."""
_FETCHING = threading.Lock()
_NEEDED: Counter[Path] = Counter()
"""How many stages that run in this process need a stage that was fetched into its folder."""


class Store:
    """The files of an experiment at a URL.

    Args:
        url: As fsspec takes it: ``s3://bucket/run``, ``gs://…``, ``file:///…``. What is needed for
            the protocol (s3fs, gcsfs) must be installed, credentials lie where that looks for them.

    Raises:
        DataError: The protocol is not known or its package is not installed; of all methods: the
            URL cannot be reached, read or written to.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise DataError(f"{url}: {error}") from error
        self.url = url
        self._files.use_listings_cache = False

    def names(self, folder: str) -> dict[str, int]:
        """Return the files below ``folder``, by name relative to it, and their sizes."""
        top = f"{self._root}/{folder}"
        with self._explained():
            self._files.invalidate_cache()
            if not self._files.isdir(top):
                return {}
            found = self._files.find(top, detail=True)
        head = len(top) + 1
        sizes = {name[head:]: info["size"] for name, info in found.items()}
        return {name: size for name, size in sizes.items() if _is_shared(Path(name))}

    def put(self, local: Path, folder: str, names: Iterable[str]) -> None:
        """Put files of the folder ``local`` into ``folder``, in the order given."""
        for name in names:
            target = f"{self._root}/{folder}/{name}"
            with self._explained():
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._put_whole(local / name, target)

    def _put_whole(self, local: Path, target: str) -> None:
        """Put a file there whole or not at all, as stores of objects do by themselves."""
        if not isinstance(self._files, LocalFileSystem):
            self._files.put_file(str(local), target)
            return
        try:
            with atomic_write(Path(target)) as temporary:
                shutil.copyfile(local, temporary)
        except PruneError as error:
            raise DataError(f"{self.url}: {error}") from error

    def fetch(self, folder: str, local: Path, names: Iterable[str]) -> None:
        """Fetch files of ``folder`` into the folder ``local``, each whole or not at all."""
        for name in names:
            with atomic_write(local / name) as temporary, self._explained():
                self._files.get_file(f"{self._root}/{folder}/{name}", str(temporary))

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """Remove files of ``folder``."""
        for name in names:
            with self._explained():
                self._files.rm_file(f"{self._root}/{folder}/{name}")

    def mark(self, folder: str, name: str) -> None:
        """Put an empty file into ``folder``."""
        with self._explained():
            self._files.pipe_file(f"{self._root}/{folder}/{name}", b"")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.url}: {error}") from error

    def fetch_output(self, stage: Stage) -> None:
        """Fetch what is reported of a done stage into its folder on this machine."""
        folder, output = stage.folder.path, stage.folder.output
        if stage.output() is not None:
            return
        there = self.names(_stage_name(stage))
        wanted = [stage.folder.training.log, output]
        if isinstance(stage, Baseline):  # what pruning will do is told from its weights
            wanted.insert(0, stage.folder.training.final_weights)
        if output.name in there:
            names = [str(path.relative_to(folder)) for path in wanted]
            self.fetch(_stage_name(stage), folder, [name for name in names if name in there])
            if not all(file.is_file() for file in stage.files):
                self._note_elsewhere(output)

    def _note_elsewhere(self, output: Path) -> None:
        found = StageOutput.model_validate_json(output.read_bytes())
        here = found.model_copy(update={"elsewhere": self.url})
        write_text(output, here.model_dump_json(indent=1) + "\n")

    def fetch_stage(self, stage: Stage) -> None:
        """Fetch all that there is of a stage; what the folder here holds of it is replaced."""
        folder = stage.folder.path
        shutil.rmtree(folder, ignore_errors=True)
        self.fetch(_stage_name(stage), folder, self.names(_stage_name(stage)))

    def put_done(self, stage: Stage) -> None:
        """Put a stage there that is done on this machine, unless it is done there as well.

        Raises:
            DataError: This machine has not its weights.
        """
        if stage.folder.output.name in self.names(_stage_name(stage)):
            return
        if not stage.folder.training.final_weights.is_file():
            raise DataError(
                f"{self.url}: the stage {stage.label} is not there, and {stage.folder.path} holds "
                "no weights to put there; name the store that has them, or remove that folder and "
                "the stage is done again"
            )
        self.put_stage(stage)

    def put_stage(self, stage: Stage) -> None:
        """Put a stage's files there: old snapshots go when newer ones are whole."""
        folder = stage.folder.path
        there, here = self.names(_stage_name(stage)), _files_in(folder)
        snapshots = f"{stage.folder.training.snapshots.relative_to(folder)}/"
        new = [
            name
            for name in here
            if not (name.startswith(snapshots) or name in _WRITTEN_ONCE)
            or there.get(name) != (folder / name).stat().st_size
        ]
        self.put(folder, _stage_name(stage), sorted(new, key=_when_to_write))
        old = [name for name in there if name.startswith(snapshots) and name not in here]
        # The solverstate first: without it a caffemodel alone is no snapshot.
        self.remove(_stage_name(stage), sorted(old, key=_when_to_write, reverse=True))


def _files_in(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _is_shared(path)
    ]


def _is_shared(path: Path) -> bool:
    return not (
        path.name in _UNSHARED or path.name.endswith(NOTES_ENDING) or ".partial" in str(path)
    )


def _when_to_write(name: str) -> int:
    """What tells that something is whole comes after it."""
    return 2 if name == "stage.json" else 1 if name.endswith((".solverstate", "result.json")) else 0


def _stage_name(stage: Stage) -> str:
    return f"stages/{stage.folder.path.name}"


class AtStore:
    """Places at a store, relative to its URL: what is not there yet is put there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._there: dict[Path, Path] = {}

    def folder(self, folder: ExperimentFolder) -> ExperimentFolder:
        """See `moving.Places`."""
        return folder

    def file(self, path: Path) -> Path:
        """See `moving.Places`."""
        if path not in self._there:
            folder = f"inputs/{sha256_of(path)[:12]}"
            if self._store.names(folder).get(path.name) != path.stat().st_size:
                self._store.put(path.parent, folder, [path.name])
            self._there[path] = Path(folder) / path.name
        return self._there[path]

    def data(self, path: Path) -> Path:
        """See `moving.Places`."""
        if path not in self._there:
            names = _files_in(path)
            contents = file_contents([path / name for name in names], path / "data")
            told = [f"{name} {contents[path / name].sha256}" for name in names]
            folder = f"data/{hashlib.sha256(' '.join(told).encode()).hexdigest()[:12]}"
            if _WHOLE not in self._store.names(folder):
                self._store.put(path, folder, names)
                self._store.mark(folder, _WHOLE)
            self._there[path] = Path(folder)
        return self._there[path]


class Fetched:
    """Places in a folder of this machine: what is not there yet is fetched from a store.

    Args:
        store: Where it comes from; the stages are in the places of `AtStore`.
        scratch: The folder.
    """

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch

    def folder(self, folder: ExperimentFolder) -> ExperimentFolder:  # noqa: ARG002  (Places')
        """See `moving.Places`."""
        return ExperimentFolder(self._scratch)

    def file(self, path: Path) -> Path:
        """See `moving.Places`."""
        local = self._scratch / path
        if not local.is_file():
            self._store.fetch(str(path.parent), local.parent, [path.name])
        return local

    def data(self, path: Path) -> Path:
        """See `moving.Places`."""
        local = self._scratch / path
        if not (local / _WHOLE).is_file():
            there = self._store.names(str(path))
            if _WHOLE not in there:
                raise DataError(f"{self._store.url}/{path}: is not whole; give the command again")
            self._store.fetch(str(path), local, sorted(there, key=lambda name: name == _WHOLE))
        return local


def fetch_outputs(stages: Iterable[Stage], url: str) -> None:
    """Fetch what is reported of all stages that are done at a store (`Store.fetch_output`)."""
    store = Store(url)
    for stage in stages:
        store.fetch_output(stage)


def run_in_store(
    stage: Stage, store: Store, scratch: Path, engine: Engine, observe: Observer, stop: Stop
) -> StageOutput:
    """Run a stage whose inputs are in the store, in a folder of this machine.

    Args:
        stage: In the places of `AtStore`.
        store: Where its inputs are, and its outputs belong.
        scratch: A folder of this process alone.
        engine: What does the work.
        observe: Called with each event.
        stop: Keeps the stage from being begun.

    Raises:
        PruneError: The stage failed or was interrupted; what it did is at the store.
    """
    with _FETCHING:  # two stages of one process may need the same
        local = moved(stage, Fetched(store, scratch))
    if local.output() is None:  # else an attempt here did it, and failed to put it there
        store.fetch_stage(local)
    # Done there, with other layers than these, or damaged since.
    is_stale = local.folder.output.is_file() and local.output() is None
    if is_stale:
        there = store.names(_stage_name(stage))
        store.remove(_stage_name(stage), [name for name in there if name in _WRITTEN_ONCE])

    def share(event: Event) -> None:
        if event.event == "snapshot":
            # The engine drops a snapshot when the next one is there, maybe while it is sent; and
            # one that cannot be sent costs no more than itself.
            with suppress(DataError, FileNotFoundError):
                store.put_stage(local)
        observe(event)

    with _fetched(local, store):
        output = local.run(engine, share, stop)
    if is_stale or local.folder.output.name not in store.names(_stage_name(local)):
        store.put_stage(local)
    shutil.rmtree(local.folder.path)
    return output


@contextmanager
def _fetched(stage: Stage, store: Store) -> Iterator[None]:
    """Have the stage's inputs here as long as a stage of this process needs them.

    Raises:
        DataError: One of them is not at the store.
    """
    folders = [needed.folder.path for needed in stage.inputs]
    with _FETCHING:
        _NEEDED.update(folders)
    try:
        for needed in stage.inputs:
            with _FETCHING:
                if needed.output() is None:
                    store.fetch_stage(needed)
            if needed.output() is None:
                raise DataError(
                    f"{store.url}/{_stage_name(needed)}: stage {stage.label} needs it, and it is "
                    f"not there, or with other layers than {', '.join(stage.context.layers)}; "
                    "remove what is there and give the command again"
                )
        yield
    finally:
        with _FETCHING:
            _NEEDED.subtract(folders)
            for folder in folders:
                if not _NEEDED[folder]:
                    del _NEEDED[folder]
                    shutil.rmtree(folder, ignore_errors=True)
