"""What a run's folder holds from before: whether it is finished, and what can be gone on from.

Finished means verified: the weights have the checksum that the result recorded. A snapshot is whole
when it has the checksums that lie beside it; of an older version, which wrote none, when it can be
read. What is not whole is told and removed, for the run to make it anew.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pycaffe_prune.engines.base import TrainResult, read_result
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import (
    MASKS,
    SNAPSHOT,
    STATE,
    SUMS,
    WEIGHTS,
    remove_snapshot,
    snapshot_files,
    snapshots_in,
    write_sums,
)
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.solverstate import read_solverstate

__all__ = [
    "ChecksumOf",
    "drop_damaged_snapshots",
    "half_written",
    "is_json",
    "remove_leftovers",
    "remove_partial_files",
    "usable_result",
    "why_unusable",
]

ChecksumOf = Callable[[Path], str]
"""Gives a file's SHA-256: `formats.files.sha256_of`, or what is known of it while its status is the
same (`engines.contents.noted_sha256`)."""

_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")
_PARTIAL = re.compile(
    r"\.partial|\..*\.partial-.*|final\.partial\.caffemodel|"
    + SNAPSHOT.replace("%d", r"\d+")
    + f"({re.escape(SUMS)}|{re.escape(MASKS)})"
    + r"\.partial"
)
"""As `formats.files.atomic_write` and the workers name what is not whole yet."""


def usable_result(
    folder: RunFolder, checksum_of: ChecksumOf
) -> tuple[TrainResult | None, str | None]:
    """Return a run's result, and why the run is not finished though it was.

    Args:
        folder: The run's.
        checksum_of: Says what the weights hold.

    Raises:
        FormatError: The result is of another version.
    """
    if folder.result.is_file() and not is_json(folder.result):
        return None, f"{folder.result} is damaged"
    result = read_result(folder)
    if result is None:
        return None, None
    fault = why_unusable(folder.final_weights, result.weights_sha256, checksum_of)
    if fault is None and result.mask_sha256 is not None:
        fault = why_unusable(folder.final_mask, result.mask_sha256, checksum_of)
    return result, fault


def is_json(path: Path) -> bool:
    """Whether a file holds JSON, of whatever meaning."""
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def why_unusable(path: Path, sha256: str, checksum_of: ChecksumOf) -> str | None:
    """Say what is wrong with a file that had a checksum; None: nothing."""
    if not path.is_file():
        return f"{path} is gone"
    if checksum_of(path) != sha256:
        return f"{path} is not as it was written: its checksum is another one"
    return None


def drop_damaged_snapshots(folder: RunFolder, iterations: int) -> Iterator[str]:
    """Remove the newest snapshots that are damaged, up to one that is whole; say so of each.

    Args:
        folder: The run's; nobody else works in it.
        iterations: How long the run is to be: later snapshots are not looked at.

    Yields:
        A sentence on each that was removed.
    """
    if not folder.snapshots.is_dir():
        return
    found = [at for at in snapshots_in(folder.snapshots) if at <= iterations]
    while found:
        at = found.pop()
        fault = _fault(folder.snapshots, at)
        if fault is None:
            return
        remove_snapshot(folder.snapshots, at)
        instead = f"on from iteration {found[-1]}" if found else "back to the beginning"
        yield f"the snapshot at iteration {at} is passed over, and the run goes {instead}: {fault}"


def _fault(snapshots: Path, iteration: int) -> str | None:
    """What is wrong with a snapshot; of one that has no checksums yet they are written."""
    weights, state = map(Path, snapshot_files(snapshots, iteration))
    sums = _sums(snapshots / f"{SNAPSHOT % iteration}{SUMS}")
    if sums.keys() >= {weights.name, state.name}:
        named = sorted(sums, key=[state.name, weights.name].__contains__, reverse=True)
        faults = (why_unusable(snapshots / name, sums[name], sha256_of) for name in named)
        return next(filter(None, faults), None)
    try:
        read_solverstate(state)
        read_caffemodel(weights)
    except PruneError as error:
        return str(error)
    write_sums(str(snapshots), iteration)
    return None


def _sums(path: Path) -> dict[str, str]:
    """Checksums by file name; none where the file is not there, or is damaged itself."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {match[2]: match[1] for match in map(_SUM.fullmatch, lines) if match}


def remove_leftovers(folder: RunFolder) -> None:
    """Remove what a killed run left half written.

    Args:
        folder: The run's; nobody else works in it.
    """
    remove_partial_files(folder.path)
    remove_partial_files(folder.snapshots)
    if folder.snapshots.is_dir():
        whole = set(snapshots_in(folder.snapshots))
        for path in folder.snapshots.iterdir():
            if _is_part_of_none(path.name, whole):
                _remove(path)


def remove_partial_files(folder: Path) -> None:
    """Remove files of a folder that a killed process was writing.

    Args:
        folder: Nobody else works in it; it may be missing.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PARTIAL.fullmatch(path.name):
            _remove(path)


def half_written(folder: RunFolder) -> Path | None:
    """Return the file that a worker was writing when it ended; None: it was writing none."""
    places = (folder.path, folder.snapshots, folder.snapshots / ".partial")
    found = [
        path
        for place in places
        for path in (place.iterdir() if place.is_dir() else ())
        if path.is_file() and (place.name == ".partial" or _PARTIAL.fullmatch(path.name))
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _is_part_of_none(name: str, whole: set[int]) -> bool:
    head, _ = SNAPSHOT.split("%d")
    endings = "|".join(map(re.escape, (STATE, WEIGHTS, MASKS, SUMS)))
    match = re.fullmatch(rf"{re.escape(head)}(\d+)({endings})", name)
    return match is not None and int(match[1]) not in whole


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
