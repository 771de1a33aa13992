"""Where Debian's packages come from on this host: the mirror, and the keys that sign it.

No host name is written here: the mirror comes from the user, from the host's apt sources, or from
the host's debootstrap package.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.engines.caffe.private_apt import apt_environment, last_lines, unpack
from pycaffe_prune.errors import EngineError

__all__ = [
    "MIRROR_VARIABLE",
    "AptSource",
    "choose_mirror",
    "debootstrap_mirror",
    "find_keyring",
    "find_mirror",
    "host_sources",
    "parse_deb822_sources",
    "parse_one_line_sources",
]

MIRROR_VARIABLE = "PYCAFFE_PRUNE_DEBIAN_MIRROR"


_KEYRING = Path("usr/share/keyrings/debian-archive-keyring.gpg")
# The names under which Debian's own archive offers whole releases, besides their codenames.
_ROLLING_SUITES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"}
_DEFAULT_MIRROR = re.compile(
    r"""^\s*(?:DEF_MIRROR=|default_mirror\s+)["']?(\S+?)["']?$""", flags=re.MULTILINE
)


@dataclass(frozen=True)
class AptSource:
    """One package source of the host: where it is and what of it is used."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_one_line_sources(text: str) -> list[AptSource]:
    """Read a ``sources.list``: lines ``deb [options] URI SUITE COMPONENT…``; others are skipped."""
    sources = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?([^\s#]+)\s+([^\s#]+)([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups()
            signed_by = re.search(r"signed-by=(\S+)", options or "")
            sources.append(
                AptSource(
                    uri,
                    (suite,),
                    tuple(components.split()),
                    signed_by[1] if signed_by else "",
                )
            )
    return sources


def parse_deb822_sources(text: str) -> list[AptSource]:
    """Read a ``.sources`` file: paragraphs of ``Field: value``; disabled ones are skipped."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    sources = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            name.lower(): " ".join(value.split())
            for name, value in re.findall(
                r"^([\w-]+):(.*(?:\n[ \t].*)*)", paragraph, flags=re.MULTILINE
            )
        }
        wanted = "deb" in fields.get("types", "").split()
        if wanted and fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off"):
            sources += [
                AptSource(
                    uri,
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    fields.get("signed-by", ""),
                )
                for uri in fields.get("uris", "").split()
            ]
    return sources


def host_sources(etc_apt: Path = Path("/etc/apt")) -> list[AptSource]:
    """Return every enabled source of the host's apt, in apt's own order."""
    main = etc_apt / "sources.list"
    parts = sorted((etc_apt / "sources.list.d").glob("*"))
    sources = []
    for path in [main, *parts]:
        if path.is_file() and path.suffix == ".list":
            sources += parse_one_line_sources(path.read_text(encoding="utf-8", errors="replace"))
        elif path.is_file() and path.suffix == ".sources":
            sources += parse_deb822_sources(path.read_text(encoding="utf-8", errors="replace"))
    return sources


def choose_mirror(sources: Iterable[AptSource], codename: str) -> str | None:
    """Return the URI of Debian's main archive among the host's sources, or None.

    Security and update suites and sources without ``main`` are never taken. Of what is left (some
    third parties name their suites after Debian's), one whose path ends in ``/debian`` is
    preferred, then one signed by Debian's own keyring, then the first.

    Args:
        sources: The host's sources.
        codename: The host's Debian release, such as ``bookworm``.
    """
    names = _ROLLING_SUITES | {codename}
    fitting = [
        source
        for source in sources
        if "main" in source.components
        and not names.isdisjoint(source.suites)
        and not source.uri.startswith("cdrom:")
    ]

    def rank(source: AptSource) -> tuple[bool, bool]:
        return (
            not source.uri.rstrip("/").endswith("/debian"),
            "debian-archive-keyring" not in source.signed_by,
        )

    best = min(fitting, key=rank, default=None)
    return best.uri.rstrip("/") if best else None


def debootstrap_mirror(root: Path) -> str | None:
    """Return the default Debian mirror written in the debootstrap unpacked in ``root``, or None."""
    scripts = root / "usr/share/debootstrap/scripts"
    for path in (scripts / "sid", scripts / "debian-common", root / "usr/sbin/debootstrap"):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            for uri in _DEFAULT_MIRROR.findall(text):
                if uri.rstrip("/").endswith("/debian"):
                    return str(uri.rstrip("/"))
    return None


def find_mirror(override: str | None, cache: Path) -> str:
    """Return the Debian mirror to use.

    In this order: ``override``, ``$PYCAFFE_PRUNE_DEBIAN_MIRROR``, the host's own apt sources when
    the host is Debian, the default mirror of the host's debootstrap package.

    Args:
        override: What the user asked for, if anything.
        cache: A folder where the host's debootstrap package may be unpacked.

    Raises:
        EngineError: No mirror is known.
    """
    given = override or os.environ.get(MIRROR_VARIABLE)
    if given:
        return given.rstrip("/")
    release = _os_release(Path("/etc/os-release"))
    if release.get("ID") == "debian":
        mirror = choose_mirror(host_sources(), release.get("VERSION_CODENAME", "stable"))
        if mirror:
            return mirror
    mirror = debootstrap_mirror(Path("/")) or debootstrap_mirror(
        _host_package("debootstrap", cache)
    )
    if not mirror:
        raise EngineError(
            f"no Debian mirror is known on this host; name one with --mirror or ${MIRROR_VARIABLE}"
        )
    return mirror


def find_keyring(cache: Path) -> Path:
    """Return the keyring that signs Debian's archive: installed, or from the host's package.

    Raises:
        EngineError: The host has neither.
    """
    installed = Path("/") / _KEYRING
    if installed.is_file():
        return installed
    keyring = _host_package("debian-archive-keyring", cache) / _KEYRING
    if not keyring.is_file():
        raise EngineError(f"{keyring}: the host's debian-archive-keyring package lacks this file")
    return keyring


def _os_release(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    words = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def _host_package(name: str, cache: Path) -> Path:
    """Download one package with the host's own apt and return where it is unpacked."""
    folder = cache / "host" / name
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.deb"):
        stale.unlink()
    done = subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=apt_environment(),
    )
    files = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or not files:
        raise EngineError(
            f"this host's apt cannot download its package {name} ({last_lines(done.stderr)}); "
            "run `apt-get update` as root, or install that package, or name a Debian mirror "
            "with --mirror"
        )
    unpack(files[0], folder / "root")
    return folder / "root"
