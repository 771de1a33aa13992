"""Where the files that a net reads lie: as it names them, or by the last parts of their paths."""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.files import existing_file

__all__ = ["DataFolder"]

_log = logging.getLogger(__name__)


class DataFolder:
    """The folder that a user names for a net's data; it answers for all paths of one net.

    Prototxts name their data from the root of a Caffe tree (``examples/mnist/mnist_train_lmdb``) or
    from that of another machine. So the whole path is tried in the folder first, then ever fewer of
    its last parts. What is found so is logged.
    """

    def __init__(self, folder: Path | None, readable: Readable) -> None:
        """``folder`` None: paths are looked up as they are, in the working directory."""
        self.folder, self.readable = folder, readable
        self._taken: dict[Path, str] = {}

    def find(self, name: str, exists: Callable[[Path], bool]) -> tuple[Path, tuple[Path, ...]]:
        """Return where ``name`` lies, and all places that were tried.

        Args:
            name: A path as a prototxt has it, relative, absolute, or with backslashes.
            exists: Whether what is looked for is at a path.

        Returns:
            An absolute path: of the first place where it is, of the whole name if it is in none.

        Raises:
            DataError: The last parts of two different names lead to the same place.
            FormatError: It is where the net may have nothing read (`engines.readable`).
        """
        places = tuple(dict.fromkeys(place.resolve() for place in self._places(name)))
        found = next((place for place in places if exists(place)), None)
        if found is None:
            return places[0], places
        self.readable.require([found])
        self._require_one_name(found, name)
        if found != places[0]:
            _say(f"'{name}' was found by the last parts of its path: {found}")
        return found, places

    def file(self, name: str, what: str) -> Path:
        """Return where the file ``name`` lies; ``what`` says what it should be.

        Raises:
            DataError: As `find`.
            FormatError: It is nowhere, or not the file itself (`formats.files.existing_file`).
        """
        found, places = self.find(name, Path.is_file)
        if len(places) > 1 and not found.is_file():
            listed = ", ".join(map(str, places[1:]))
            raise FormatError(f"{found}: no such file, nor {listed}; {what} is needed")
        return existing_file(found, what)

    def _require_one_name(self, found: Path, name: str) -> None:
        """See that no other path has led there, by its last parts: train and test data, say."""
        first = self._taken.setdefault(found, name)
        short, long = sorted((_parts(first), _parts(name)), key=len)
        if long[len(long) - len(short) :] != short:
            raise DataError(
                f"'{first}' and '{name}' would both be {found}: only the last parts of their paths "
                "are in --data, and these are the same; put each in a folder there that is called "
                "as in the net"
            )

    def _places(self, name: str) -> Iterator[Path]:
        if self.folder is None:
            yield Path(name)
            return
        yield self.folder / name
        parts = _parts(name)
        for start in range(len(parts)):
            yield self.folder.joinpath(*parts[start:])


def _parts(name: str) -> tuple[str, ...]:
    return tuple(
        part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")
    )


@cache
def _say(sentence: str) -> None:
    """Once in a process: a net is read several times on its way to an engine."""
    _log.warning(sentence)
