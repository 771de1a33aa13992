"""Which files a net or a solver may have read: below --data and its own folder, and no others."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pycaffe_prune.errors import FormatError

__all__ = ["Readable"]


@dataclass(frozen=True)
class Readable:
    """The folders below which files may be read that a net or a solver names.

    A file is where it is when all links on the way are followed: a link that a stranger packed
    leads nowhere else.
    """

    source: Path
    """The net or solver, to begin sentences with."""
    folders: tuple[Path, ...] | None
    """Resolved; None: any file may be read, as `--trust` says."""

    @classmethod
    def of(
        cls, source: Path, data: Path | None, own: Iterable[Path] = (), *, trust: bool
    ) -> "Readable":
        """Return what ``source`` may have read.

        Args:
            source: The net or solver; what lies below its folder may be read.
            data: The folder that the user names for data; None: the working directory.
            own: Other folders of the user's files: of the solver that names a net, say.
            trust: Whether ``source`` is the user's own.
        """
        if trust:
            return cls(source, None)
        folders = (data or Path(), source.resolve().parent, *own)
        return cls(source, tuple(dict.fromkeys(folder.resolve() for folder in folders)))

    def allows(self, path: Path) -> bool:
        """Whether a file or folder may be read."""
        return self.folders is None or _is_below(path, self.folders)

    def require(self, paths: Iterable[Path | str]) -> None:
        """See that files or folders may be read; of the many files of a list each folder once.

        Raises:
            FormatError: One lies elsewhere; the sentence names it, and the remedy.
        """
        if self.folders is None:
            return
        known: dict[Path, bool] = {}
        for path in map(Path, paths):
            folder = path.parent
            if folder not in known:
                known[folder] = _is_below(folder, self.folders)
            is_plain = known[folder] and path.name != ".." and not path.is_symlink()
            if not is_plain and not _is_below(path, self.folders):
                self._refuse(path, self.folders)

    def _refuse(self, path: Path, folders: tuple[Path, ...]) -> NoReturn:
        real = path.resolve()
        link = "" if real == path else f", which leads to {real}"
        raise FormatError(
            f"{self.source}: names the file {path}{link}; that is not below "
            f"{' or '.join(map(str, folders))}. Name a folder that it is in with --data, or give "
            "--trust if the file that names it is your own (docs/trust.md)"
        )


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    real = path.resolve()
    return any(real.is_relative_to(folder) for folder in folders)
