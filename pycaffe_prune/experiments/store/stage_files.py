"""What a stage left in its folder, and whether that is still as it was."""

from collections.abc import Sequence
from pathlib import Path

from pycaffe_prune.engines.base import read_result
from pycaffe_prune.engines.run_state import ChecksumOf, why_unusable
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import read_mask

__all__ = ["checksums", "fault_of_files", "fault_of_old_files"]


def checksums(folder: StageFolder, files: Sequence[Path]) -> dict[str, str]:
    """Return the SHA-256 of a stage's files, by path relative to its folder."""
    return {str(file.relative_to(folder.path)): sha256_of(file) for file in files}


def fault_of_files(
    folder: StageFolder, recorded: dict[str, str], checksum_of: ChecksumOf
) -> str | None:
    """Say which of a stage's files is gone or another one; None: all are as they were recorded."""
    faults = (
        why_unusable(folder.path / name, sha256, checksum_of) for name, sha256 in recorded.items()
    )
    return next(filter(None, faults), None)


def fault_of_old_files(folder: StageFolder, files: Sequence[Path]) -> str | None:
    """Say what is wrong with the files of a stage that recorded no checksums; None: nothing.

    The weights have to be those of the training's result, where that is there; what has no
    checksum anywhere has to be readable.
    """
    if gone := [file for file in files if not file.is_file()]:
        return f"{gone[0]} is gone"
    try:
        result = read_result(folder.training)
        for file in files:
            if file == folder.mask:
                read_mask(file)
            elif result is None or sha256_of(file) != result.weights_sha256:
                read_caffemodel(file)
    except PruneError as error:
        return str(error)
    return None
