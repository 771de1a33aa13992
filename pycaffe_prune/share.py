"""Where the files that come with the toolkit lie: prototxt, solvers, experiments."""

from pathlib import Path

__all__ = ["share_root"]


def share_root() -> Path:
    """Return the folder that holds ``prototxt/``, ``solvers/`` and ``experiments/``.

    That is the checkout when the package runs from one, else the copy inside the installed package.
    """
    package = Path(__file__).parent
    installed = package / "share"
    return installed if installed.is_dir() else package.parent
