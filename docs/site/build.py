"""Build the documentation site from README.md, docs/ and whatever these link to: `make docs`.

A page's links are relative to its place in the repository, so that they work there too. MkDocs
wants all pages in one folder: this makes one of symbolic links with the repository's own layout,
holding the pages and the files that they name, and runs MkDocs on it, strictly.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"
SOURCE = ROOT / "build" / "docs-source"
_LINK = re.compile(r"\]\(([^()\s#]+)")


def linked(page: Path) -> Iterator[Path]:
    """Yield the files of the repository that a page links to.

    Raises:
        FileNotFoundError: There is no such file.
    """
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve()
        if not file.is_relative_to(ROOT) or not file.exists():
            raise FileNotFoundError(f"{page.relative_to(ROOT)} links to {target}, which is missing")
        if file.is_file():
            yield file


def site_files() -> set[Path]:
    """Return the first pages and all files that can be reached from them by links."""
    waiting = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), SITE / "site.css"]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".md":
            waiting += linked(file)
    return found


def stage() -> None:
    """Make the folder that MkDocs reads."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for file in site_files():
        place = SOURCE / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)


def main() -> int:
    """Stage and build; what is behind the script's name goes to MkDocs."""
    try:
        stage()
    except FileNotFoundError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "mkdocs", *(sys.argv[1:] or ["build", "--strict", "--quiet"])]
    return subprocess.run([*command, "--config-file", SITE / "mkdocs.yml"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
