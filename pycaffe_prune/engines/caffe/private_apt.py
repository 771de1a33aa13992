"""An apt with a state of its own: any Debian release's packages on any host, without root."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pycaffe_prune.errors import EngineError

__all__ = ["OnProgress", "Package", "PrivateApt", "apt_environment", "last_lines", "unpack"]

# Called with what is being done and how much of it is done (0 to 1; None when nobody can tell).
OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Package:
    """One package file of the archive; ``size`` is in bytes."""

    file_name: str
    size: int

    @property
    def name(self) -> str:
        """The package's name, without version and architecture."""
        return self.file_name.split("_")[0]

    @property
    def version(self) -> str:
        """The package's version, its epoch included."""
        return unquote(self.file_name.split("_")[1])


def unpack(deb: Path, folder: Path) -> None:
    """Unpack one package file into ``folder`` (its maintainer scripts are not run).

    Raises:
        EngineError: ``dpkg-deb`` refused; the message has its reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["dpkg-deb", "-x", str(deb), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise EngineError(f"{deb.name}: could not be unpacked: {last_lines(done.stderr)}")


def apt_environment() -> dict[str, str]:
    """Return the environment for apt: its messages in English, its questions not asked."""
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def last_lines(text: str, count: int = 4) -> str:
    """Join the last ``count`` lines that say what is wrong: apt marks them ``E:`` and ``W:``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(E|W|Err|dpkg-deb)\b", line)]
    return "; ".join((marked or lines)[-count:]) or "it gave no reason"


class PrivateApt:
    """An apt of its own: own lists, own download folder, an empty list of installed packages.

    Args:
        folder: Where it keeps everything; a second instance on the same folder goes on from there.
        mirror: The Debian mirror.
        release: The Debian release's codename.
        keyring: The keys that may sign the release; unsigned archives are refused.
    """

    def __init__(self, folder: Path, mirror: str, release: str, keyring: Path) -> None:
        self.folder = folder
        self.mirror = mirror
        self.release = release
        self._keyring = keyring
        self._archives = folder / "archives"
        for needed in ("lists/partial", "archives/partial", "none/partial", "keys"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        # In a folder of its own, not as signed-by, which allows no blank in the path.
        shutil.copyfile(keyring, folder / "keys" / "archive.gpg")
        (folder / "sources.list").write_text(f"deb [arch=amd64] {mirror} {release} main\n")

    def update(self, on_progress: OnProgress) -> None:
        """Download the release's package lists and check their signature.

        Raises:
            EngineError: The mirror cannot be reached, lacks the release, or is not signed by the
                keyring.
        """
        self._run(["update"], self._archives, on_progress, "reading the package lists")

    def list_packages(self, names: Sequence[str]) -> list[Package]:
        """Return every package file that ``names`` need, in apt's order.

        Raises:
            EngineError: One of them is not in the release.
        """
        lines = self._run(
            ["install", "--yes", "--print-uris", *names], self.folder / "none", _ignore, ""
        )
        found = re.findall(r"(?m)^'[^']*' (\S+\.deb) (\d+)", lines)
        return [Package(file_name, int(size)) for file_name, size in found]

    def missing(self, packages: Iterable[Package]) -> list[Package]:
        """Return those packages that are not completely downloaded yet."""
        return [
            package
            for package in packages
            if not (path := self._archives / package.file_name).is_file()
            or path.stat().st_size != package.size
        ]

    def download(
        self, names: Sequence[str], packages: Iterable[Package], on_progress: OnProgress
    ) -> list[Path]:
        """Download ``names`` and all they need, going on where an earlier call was cut off.

        Args:
            names: What to ask apt for.
            packages: The same with all that they need, as `list_packages` gave them.
            on_progress: Called as the download proceeds.

        Returns:
            The package files, in the order of ``packages``.

        Raises:
            EngineError: A download failed or its checksum is wrong.
        """
        self._run(
            ["install", "--yes", "--download-only", *names],
            self._archives,
            on_progress,
            "downloading",
        )
        absent = self.missing(packages)
        if absent:
            raise EngineError(f"{absent[0].file_name}: apt did not download it; try again")
        return [self._archives / package.file_name for package in packages]

    def _run(
        self, arguments: Sequence[str], archives: Path, on_progress: OnProgress, step: str
    ) -> str:
        """Run apt-get, report its progress lines, and return what it printed."""
        read_end, write_end = os.pipe()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
            os.fdopen(read_end, encoding="utf-8", errors="replace") as status,
        ):
            try:
                child = subprocess.Popen(
                    ["apt-get", *self._options(archives, write_end), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[write_end],
                    env=apt_environment(),
                )
            finally:
                os.close(write_end)
            with child:
                try:
                    for line in status:
                        fields = line.rstrip("\n").split(":", 3)
                        if fields[0] == "dlstatus" and len(fields) == 4:
                            on_progress(step, float(fields[2]) / 100)
                except BaseException:
                    child.terminate()  # or leaving the block would wait for the whole download
                    raise
            output.seek(0)
            text = output.read()
        if child.returncode != 0 or re.search(r"(?m)^(E|W): .*(Failed to fetch|GPG error)", text):
            raise EngineError(self._explain(text))
        return text

    def _options(self, archives: Path, status_descriptor: int) -> list[str]:
        settings = {
            "Dir::State": self.folder,
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder,
            "Dir::Cache::archives": archives,
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": self.folder / "keys",
            "Debug::NoLocking": "true",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # apt then stays who it is: no warning as root or not
            "APT::Install-Recommends": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "APT::Status-Fd": status_descriptor,
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": 2,
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return ["-qq", *options]

    def _explain(self, text: str) -> str:
        """Turn apt's output into one sentence with a remedy."""
        reason = last_lines(text)
        where = f"the Debian mirror {self.mirror}"
        if re.search(r"\s(400|403|404|410) |does not have a Release file|File not found", text):
            return (
                f"{where} does not have {self.release} (any more): old releases move to an archive "
                f"mirror in time; name one with --mirror ({reason})"
            )
        if re.search(r"NO_PUBKEY|GPG error|signatures? (was|were|couldn't)", text) or (
            "not signed" in text and "Failed to fetch" not in text
        ):
            return (
                f"{where}: {self.release} is not signed by {self._keyring}, so nothing was taken "
                f"from it ({reason}). Name another mirror with --mirror."
            )
        if "Failed to fetch" in text:
            return (
                f"{where} cannot be reached ({reason}). Check the network, or name another mirror "
                "with --mirror; what is already downloaded is kept."
            )
        if "No space left" in text:
            return f"{self.folder}: the disk is full; free some space and try again"
        return f"{where}: apt failed on {self.release}: {reason}"


def _ignore(step: str, fraction: float | None) -> None:
    """Report nothing."""
