"""A sensitivity analysis as files."""

from pathlib import Path

from pycaffe_prune.experiments.sensitivity.result import SensitivityResult
from pycaffe_prune.formats.files import atomic_write

__all__ = ["write_figures"]


def write_figures(result: SensitivityResult, out: Path) -> None:
    """Write ``sensitivity.png`` and ``sensitivity.svg`` into ``out``.

    Raises:
        PruneError: The folder cannot be written to, or the disk is full.
    """
    from pycaffe_prune.reports.sensitivity.figure import png, svg

    for name, content in {"sensitivity.png": png(result), "sensitivity.svg": svg(result)}.items():
        with atomic_write(out / name) as temporary:
            temporary.write_bytes(content)
