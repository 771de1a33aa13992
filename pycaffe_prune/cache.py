"""Where downloads and other things that can be had again are kept."""

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_root"]


def cache_root() -> Path:
    """Return the package's cache folder, which may not exist yet.

    The environment variable ``PYCAFFE_PRUNE_CACHE`` names it; without it (or with an empty one) it
    is the user's cache folder of this system, ``~/.cache/pycaffe-prune`` on Linux.
    """
    override = os.environ.get("PYCAFFE_PRUNE_CACHE")
    if override:
        return Path(override).expanduser()
    return platformdirs.user_cache_path("pycaffe-prune", appauthor=False)
